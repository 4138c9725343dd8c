//! Training, exactly resumable, as a [`recipe`] says: large-scale pre-training ([`pretrain()`]) and
//! meta-transfer training ([`meta_train()`]), which share the loop of [`trainer`].

pub mod checkpoint;
pub mod inner_rates;
pub mod log;
pub mod meta;
pub mod meta_train;
mod muon;
pub mod patches;
pub mod photos;
pub mod pretrain;
pub mod random;
pub mod recipe;
pub mod tensorboard;
mod through;
pub mod trainer;
pub mod validation;

pub use meta_train::meta_train;
pub use pretrain::pretrain;
pub use recipe::Recipe;
pub use trainer::{Ending, Event, Options};
