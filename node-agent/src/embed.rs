//! Vectors of texts, by a model that the node's operator provides as files.
//!
//! [`OnnxEmbedder`] runs an encoder in the layout of sentence-transformers: `layout` reads what the directory says about
//! it, `onnx` runs it. Without a model there is no embedder, and what needs one says so; nothing stands in for it.

mod layout;
mod onnx;

pub use onnx::OnnxEmbedder;

use std::{io, path::PathBuf};

/// Turns texts into vectors. Vectors of two models must not be compared, so what is stored with vectors is also stored
/// with the model's name.
pub trait Embedder: Send + Sync {
    /// Numbers in a vector.
    fn dimension(&self) -> usize;

    /// Which model this is: another name for other files.
    fn model(&self) -> &str;

    /// One vector per text, in their order. It computes for as long as it takes, so it is called on a thread that may
    /// block; memory is bounded by the model, however many texts there are.
    ///
    /// # Errors
    /// When the model cannot be run on a text.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError>;
}

/// A model that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// A file that is needed is not there.
    #[error("{dir} has no {file}: {why}")]
    Missing {
        /// The directory of the model.
        dir: PathBuf,
        /// The file below it.
        file: &'static str,
        /// What it is for.
        why: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file says something that cannot be done.
    #[error("{path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The model was loaded, and does not work on this input.
    #[error("the embedding model failed: {0}")]
    Failed(String),
}
