//! An encoder in ONNX, run by tract in this process.

use super::{
    EmbedError, Embedder,
    layout::{Layout, Pooling},
};
use std::path::Path;
use tokenizers::{Tokenizer, TruncationParams};
use tract_onnx::{prelude::*, tract_hir::infer::Factoid};

/// Most texts that the model sees at once.
const BATCH: usize = 32;
/// Most pairs of tokens in a batch: what the attention of one head holds, and the largest thing in memory.
const PAIRS: usize = 1 << 20;

/// Names that exporters give to the vectors of the tokens.
const STATES: [&str; 2] = ["last_hidden_state", "token_embeddings"];

/// What an input of the graph wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Ids,
    Mask,
    Types,
}

impl Input {
    fn named(name: &str) -> Option<Self> {
        match name {
            "input_ids" => Some(Self::Ids),
            "attention_mask" => Some(Self::Mask),
            "token_type_ids" => Some(Self::Types),
            _ => None,
        }
    }
}

/// A model in the layout of sentence-transformers, loaded.
pub struct OnnxEmbedder {
    model: String,
    tokenizer: Tokenizer,
    pad: i64,
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<(Input, DatumType)>,
    pooling: Pooling,
    normalized: bool,
    dimension: usize,
}

impl std::fmt::Debug for OnnxEmbedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxEmbedder")
            .field("model", &self.model)
            .field("dimension", &self.dimension)
            .finish_non_exhaustive()
    }
}

impl OnnxEmbedder {
    /// Loads the model of a directory, and tries it once.
    ///
    /// # Errors
    /// Names the file that is missing or wrong.
    pub fn open(dir: &Path) -> Result<Self, EmbedError> {
        let layout = Layout::read(dir)?;
        let (tokenizer, pad) = read_tokenizer(&layout)?;
        let wrong = |reason: String| EmbedError::Invalid {
            path: layout.model.clone(),
            reason,
        };
        let Encoder {
            plan,
            inputs,
            dimension,
        } = read_model(&layout.model).map_err(wrong)?;
        if let Some(said) = layout.dimension
            && said != dimension
        {
            return Err(EmbedError::Invalid {
                path: layout.pooling_file,
                reason: format!("word_embedding_dimension is {said}, and the model's vectors have {dimension} numbers"),
            });
        }
        let embedder = Self {
            model: layout.name(dir)?,
            tokenizer,
            pad,
            plan,
            inputs,
            pooling: layout.pooling,
            normalized: layout.normalized,
            dimension,
        };
        // What does not fit together is found now, and not by the first caller.
        embedder
            .embed(&["a", "longer text"])
            .map_err(|error| wrong(error.to_string()))?;
        Ok(embedder)
    }

    /// The vectors of one batch.
    fn run(&self, batch: &[&[i64]]) -> TractResult<Vec<Vec<f32>>> {
        let length = batch.iter().map(|tokens| tokens.len()).max().unwrap_or(0).max(1);
        let shape = [batch.len(), length];
        let input = |&(input, datum_type): &(Input, DatumType)| -> TractResult<TValue> {
            let mut values = Vec::with_capacity(batch.len() * length);
            for tokens in batch {
                let filled = values.len() + length;
                match input {
                    Input::Ids => values.extend_from_slice(tokens),
                    Input::Mask => values.resize(values.len() + tokens.len(), 1),
                    Input::Types => {}
                }
                values.resize(filled, if input == Input::Ids { self.pad } else { 0 });
            }
            let tensor = Tensor::from_shape(&shape, &values)?;
            Ok(tensor.cast_to_dt(datum_type)?.into_owned().into_tvalue())
        };
        let inputs: TVec<TValue> = self.inputs.iter().map(input).collect::<TractResult<_>>()?;
        let outputs = self.plan.run(inputs)?;
        let states = outputs[0].cast_to::<f32>()?;
        if states.shape() != [batch.len(), length, self.dimension] {
            return Err(TractError::msg(format!("an output of the shape {:?}", states.shape())));
        }
        let plain = states.try_as_plain_ram()?;
        let rows = plain.as_slice::<f32>()?.chunks_exact(length * self.dimension);
        let vectors = rows
            .zip(batch)
            .map(|(row, tokens)| self.pool(row, tokens.len()))
            .collect();
        Ok(vectors)
    }

    /// The vector of a text from those of its tokens, of which the first `count` are not padding.
    fn pool(&self, states: &[f32], count: usize) -> Vec<f32> {
        let mut tokens = states.chunks_exact(self.dimension).take(count);
        let mut vector = tokens.next().map_or_else(|| vec![0.0; self.dimension], <[f32]>::to_vec);
        if self.pooling == Pooling::Mean {
            for token in tokens {
                for (sum, value) in vector.iter_mut().zip(token) {
                    *sum += value;
                }
            }
            let count = count.max(1) as f32;
            vector.iter_mut().for_each(|sum| *sum /= count);
        }
        if self.normalized {
            let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
            if norm > 0.0 {
                vector.iter_mut().for_each(|value| *value /= norm);
            }
        }
        vector
    }
}

impl Embedder for OnnxEmbedder {
    fn dimension(&self) -> usize {
        self.dimension
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let tokens = |text: &&str| {
            // Only the ids are kept: an encoding also has what was cut off.
            let encoding = self.tokenizer.encode_fast(*text, true);
            encoding.map(|encoding| encoding.get_ids().iter().map(|&id| i64::from(id)).collect::<Vec<_>>())
        };
        let tokens: Vec<Vec<i64>> = texts
            .iter()
            .map(tokens)
            .collect::<Result<_, _>>()
            .map_err(|error| EmbedError::Failed(error.to_string()))?;
        // Texts of about the same length go together, so that little is padding.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| std::cmp::Reverse(tokens[text].len()));
        let mut vectors = vec![Vec::new(); texts.len()];
        let mut rest = &order[..];
        while let [longest, ..] = rest {
            let (batch, later) = rest.split_at(batch_size(tokens[*longest].len()).min(rest.len()));
            let inputs: Vec<&[i64]> = batch.iter().map(|&text| &tokens[text][..]).collect();
            let outputs = self
                .run(&inputs)
                .map_err(|error| EmbedError::Failed(format!("{error:#}")))?;
            for (&text, vector) in batch.iter().zip(outputs) {
                if vector.iter().any(|value| !value.is_finite()) {
                    return Err(EmbedError::Failed(
                        "a vector with a number that is not finite".to_owned(),
                    ));
                }
                vectors[text] = vector;
            }
            rest = later;
        }
        Ok(vectors)
    }
}

/// Texts of this many tokens that go into one batch.
fn batch_size(tokens: usize) -> usize {
    (PAIRS / tokens.max(1).pow(2)).clamp(1, BATCH)
}

/// The tokenizer and the token that fills up a batch. How long texts may be and how they are padded is the model's and
/// the batch's matter: what the file says of it was somebody's training.
fn read_tokenizer(layout: &Layout) -> Result<(Tokenizer, i64), EmbedError> {
    let wrong = |error: tokenizers::Error| EmbedError::Invalid {
        path: layout.tokenizer.clone(),
        reason: error.to_string(),
    };
    let mut tokenizer = Tokenizer::from_file(&layout.tokenizer).map_err(wrong)?;
    let pad = tokenizer
        .get_padding()
        .map(|padding| padding.pad_id)
        .or(layout.pad)
        .unwrap_or(0);
    let truncation = TruncationParams {
        max_length: layout.max_tokens,
        ..TruncationParams::default()
    };
    tokenizer
        .with_padding(None)
        .with_truncation(Some(truncation))
        .map_err(wrong)?;
    Ok((tokenizer, i64::from(pad)))
}

/// A graph that is ready to run.
struct Encoder {
    plan: Arc<TypedRunnableModel>,
    /// In the order in which the plan takes them.
    inputs: Vec<(Input, DatumType)>,
    /// Numbers in a vector.
    dimension: usize,
}

/// The graph in a file, or what is wrong with it.
fn read_model(path: &Path) -> Result<Encoder, String> {
    let because = |error: TractError| format!("{error:#}");
    // What the exporter noted of shapes inside of the graph has names of its own, which ours would contradict.
    let graph = tract_onnx::onnx().with_ignore_value_info(true);
    let mut model = graph.model_for_path(path).map_err(because)?;
    let inputs = name_inputs(&mut model)?;
    model.analyse(false).map_err(because)?;
    let states = find_states(&model)?;
    model.select_output_outlets(&[states]).map_err(because)?;
    let model = model.into_optimized().map_err(because)?;
    let fact = model.output_fact(0).map_err(because)?;
    let dimension = fact.shape[2]
        .to_i64()
        .ok()
        .and_then(|dimension| usize::try_from(dimension).ok());
    let Some(dimension) = dimension.filter(|dimension| *dimension > 0) else {
        return Err(format!(
            "the length of a vector is not known from the graph: its output has the shape {:?}",
            fact.shape
        ));
    };
    let plan = model.into_runnable().map_err(because)?;
    Ok(Encoder {
        plan,
        inputs,
        dimension,
    })
}

/// Says that every input is `[batch, tokens]`, with the same two unknowns, whatever the exporter called them.
fn name_inputs(model: &mut InferenceModel) -> Result<Vec<(Input, DatumType)>, String> {
    let dims = ["batch", "tokens"].map(|name| TDim::from(model.new_sym_with_prefix(name)));
    let outlets = model.inputs.clone();
    let mut inputs = Vec::with_capacity(outlets.len());
    for outlet in outlets {
        let name = model.node(outlet.node).name.clone();
        let Some(input) = Input::named(&name) else {
            return Err(format!(
                "the input {name} is not supported; input_ids, attention_mask and token_type_ids are"
            ));
        };
        let fact = model.outlet_fact(outlet).map_err(|error| format!("{error:#}"))?;
        let is_fixed = |dim: TDim| dim.to_i64().is_ok();
        let fixed = fact.shape.dims().filter_map(Factoid::concretize).any(is_fixed);
        if fixed || fact.shape.dims().count() != 2 {
            return Err(format!(
                "the input {name} has the shape {:?}; export the model with dynamic axes [batch, tokens]",
                fact.shape
            ));
        }
        let datum_type = fact.datum_type.concretize().unwrap_or(DatumType::I64);
        let fact = InferenceFact::dt_shape(datum_type, &dims);
        model
            .set_outlet_fact(outlet, fact)
            .map_err(|error| format!("{error:#}"))?;
        inputs.push((input, datum_type));
    }
    for (input, name) in [(Input::Ids, "input_ids"), (Input::Mask, "attention_mask")] {
        if !inputs.iter().any(|(known, _)| *known == input) {
            return Err(format!("there is no input {name}"));
        }
    }
    Ok(inputs)
}

/// The output with the vectors of the tokens: by its name, or the first that has their shape.
fn find_states(model: &InferenceModel) -> Result<OutletId, String> {
    let is_states = |outlet: &&OutletId| {
        model.outlet_fact(**outlet).is_ok_and(|fact| {
            fact.shape.rank().concretize() == Some(3)
                && fact
                    .datum_type
                    .concretize()
                    .is_some_and(|datum_type| datum_type.is_float())
        })
    };
    let candidates: Vec<&OutletId> = model.outputs.iter().filter(is_states).collect();
    let named = |outlet: &&&OutletId| {
        model
            .outlet_label(***outlet)
            .is_some_and(|label| STATES.contains(&label))
    };
    let found = candidates.iter().find(named).or(candidates.first());
    found
        .map(|outlet| **outlet)
        .ok_or_else(|| "there is no output [batch, tokens, dimension] of numbers".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn batches_are_bounded_by_texts_and_by_memory() {
        assert_eq!(
            [0, 3, 128, 256, 512, 1024, 5000].map(batch_size),
            [32, 32, 32, 16, 4, 1, 1]
        );
    }
}
