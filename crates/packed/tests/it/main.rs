//! Files that are a program and a model, from outside.

mod packed;
