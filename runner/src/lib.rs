//! The agent in a private cluster. It dials out, takes signed orders from its queue, runs each
//! command in a pod of its own, and relays what the command printed. It opens no port of the cluster
//! and holds nothing that matters: it may be killed at any time, and any replica takes over.
//!
//! ```text
//!             enrolment: who we are, and whose orders we follow
//!                 │
//!  AMQP ──▶ inbox ──▶ order ──▶ starter ──▶ pool ──▶ pod        watch, janitor: what became of pods
//!             ▲      (judged)   (claim,     (Kubernetes)          │
//!             └──── verdict ◀── permit)                           ▼
//!                                  ▲    relay ◀──TLS── shim    upstream ──HTTPS──▶ dispatcher
//!                                  └─────┘ (proves its pod)
//! ```
//!
//! Two rules hold everywhere. Nothing is acknowledged before what it stands for is on record with the
//! dispatcher. And every part can be repeated: by a redelivery, by another replica, after a restart.

pub mod options;
mod clock;
mod config;
mod identity;
mod enrolment;
mod upstream;
mod inbox;
mod order;
mod slots;
mod starter;
mod pool;
mod pod;
mod job_pod;
mod start_record;
mod recovery;
mod relay;
mod contact;
mod watch;
mod diagnosis;
mod janitor;
mod health;
mod report;
mod app;
#[cfg(test)]
mod scripted;

pub use app::run;
