//! The dispatcher as a whole, over its real doors, on real engines: SQLite in a folder of its own,
//! PostgreSQL, RabbitMQ and S3 where `make test` has started them.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on stops, and says where"
)]

mod bed;
mod runner;
mod broker_bed;
mod store;
mod blobs;
mod store_uploads;
mod doors;
mod openapi;
mod files;
mod secrets;
mod submit;
mod waits;
mod lifecycle;
mod fleet;
mod fanouts;
mod fanout_doors;
mod clock;
mod stdin;
mod output;
mod stream;
mod artifacts;
mod disk;
mod enrol;
mod schedules;
mod ticks;
mod webhooks;
mod broker;
