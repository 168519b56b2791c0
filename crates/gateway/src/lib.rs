//! The gateway: what stands between clients and stores and speaks PostgreSQL's protocol to both.
//!
//! The path of a query, in the order of the files:
//!
//! 1. [`listen`] accepts a connection and gives it to a [`worker`]; [`startup`] reads who wants what; [`login`] has
//!    them prove it, by a password ([`auth`], [`scram`]) or a [`certificate`]. Until then [`strangers`] bounds what
//!    the connection costs.
//! 2. [`session`] asks policy and has the face compiled ([`admission`]), and takes a [`connection`] to the store as the face's
//!    role ([`pool`], [`backend`]), for good or for each transaction ([`pin`]).
//! 3. [`client_side`] reads the client's frames ([`frame`]): `ringfence_statement` analyses each text once (a
//!    long one on a thread apart, [`long_texts`]), the intent
//!    goes to the ledger, and the frame to the store, side by side.
//! 4. [`store_side`] carries the answer back, byte for byte, once the intent is durable; it counts rows, keeps limits
//!    ([`quota`]) and stops when [`grants`] says so.
//!
//! Across the border, [`metering`] finds whose data a row shows ([`rows`]), and [`meter`] counts them before the row leaves.
//!
//! Around it: [`cancel`] requests that hit their own statement only, [`counting`] of workloads, [`console`], where people
//! ask and approve, and operators look ([`show`]).
//!
//! Promises: a byte of an answer leaves only after its intent is durable; what is not understood is refused; no error that
//! the gateway makes shows a value.

pub mod admission;
pub mod allowance;
pub mod auth;
pub mod backend;
pub mod border;
pub mod cancel;
pub mod certificate;
pub mod client_side;
pub mod config;
pub mod connection;
pub mod console;
pub mod counting;
pub(crate) mod enrolment;
pub mod explain;
pub mod facts;
pub mod flow;
pub mod frame;
pub mod grants;
pub mod handover;
pub mod listen;
pub mod login;
pub mod long_texts;
pub mod meter;
pub mod metering;
pub mod orders;
pub mod others;
pub mod peers;
mod pin;
pub mod plans;
pub mod pool;
pub mod presence;
mod proxy_header;
pub mod quota;
pub mod records;
pub mod refusal;
pub mod register;
pub mod relay;
pub mod requests;
pub mod route;
pub mod rows;
pub mod scram;
pub mod server;
pub mod session;
pub mod sessions;
pub mod show;
mod sockets;
pub mod stand_in;
pub mod startup;
pub mod store_side;
pub mod strangers;
pub mod throttle;
pub mod traces;
pub mod vouch;
pub mod worker;

pub use config::{Config, RouteConfig, StoreConfig, TlsRequired};
pub use handover::Inherited;
pub use server::{Gateway, StartError};
