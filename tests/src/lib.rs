//! The harness of the end-to-end tests: the running test bed, and the real programs in it.
//!
//! The tests run inside the hub's network, where the CLI, the dispatcher and RabbitMQ live and from
//! where the cluster cannot be reached. What must look into the cluster enters its network by name.

pub mod bed;
pub mod process;
pub mod wait;
pub mod collector;
pub mod canary;
pub mod noise;
pub mod hooks;
pub mod faults;
pub mod broker;
pub mod database;
pub mod row;
pub mod chaos;
