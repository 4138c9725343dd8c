//! Training: large-scale pre-training ([`pretrain()`]) of what a [`recipe`] says, exactly
//! resumable; and the gradients of meta-training ([`meta`]).

pub mod checkpoint;
pub mod log;
pub mod meta;
pub mod patches;
pub mod photos;
pub mod pretrain;
pub mod random;
pub mod recipe;
pub mod tensorboard;
pub mod validation;

pub use pretrain::{Ending, Event, Options, pretrain};
pub use recipe::Recipe;
