//! The server from outside: a real listener, a tiny model, a plain HTTP client.

mod answers;
mod bodies;
mod fixture;
mod life;
mod safety;
