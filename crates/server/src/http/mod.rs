//! HTTP: connections, who may ask, bodies, and which function answers what.

pub(crate) mod body;
pub(crate) mod guard;
pub(crate) mod listener;
mod patience;
pub(crate) mod respond;
pub(crate) mod routes;
