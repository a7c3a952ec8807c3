//! The dispatcher as a whole, over its real doors, on real engines: SQLite in a folder of its own,
//! PostgreSQL and RabbitMQ where `make test` has started them.

mod bed;
mod runner;
mod broker_bed;
mod store;
mod doors;
mod openapi;
mod submit;
mod lifecycle;
mod output;
mod enrol;
mod broker;
