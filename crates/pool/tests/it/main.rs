//! The pool from outside.

mod pool;
