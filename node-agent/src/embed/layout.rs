//! What the directory of a model says: `modules.json` lists the steps (encoder, pooling, normalisation), and each has a
//! configuration of its own. A step that is not known is refused, since vectors without it would be wrong and look right.

use super::EmbedError;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{
    fs,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

/// Most tokens of a text, whatever the model says: attention takes memory by their square.
const MAX_TOKENS: usize = 1024;
/// A model with fewer has no room for a text between its special tokens.
const MIN_TOKENS: usize = 8;

/// How the vectors of the tokens become the vector of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooling {
    /// The mean of all tokens.
    Mean,
    /// The first token.
    Cls,
}

/// A directory that holds a model.
#[derive(Debug)]
pub(super) struct Layout {
    /// The graph.
    pub model: PathBuf,
    /// The tokenizer.
    pub tokenizer: PathBuf,
    /// Where the pooling is said, for errors.
    pub pooling_file: PathBuf,
    /// How tokens become a text.
    pub pooling: Pooling,
    /// Numbers in a vector, if the pooling says it.
    pub dimension: Option<usize>,
    /// Whether vectors get length 1.
    pub normalized: bool,
    /// Most tokens of a text; what comes after them is not read.
    pub max_tokens: usize,
    /// The token that fills up a batch.
    pub pad: Option<u32>,
}

#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

#[derive(Default, Deserialize)]
struct Config {
    max_position_embeddings: Option<usize>,
    pad_token_id: Option<u32>,
}

#[derive(Default, Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
}

impl Layout {
    /// Reads the directory.
    ///
    /// # Errors
    /// Names the file that is missing or wrong.
    pub(super) fn read(dir: &Path) -> Result<Self, EmbedError> {
        let missing = |file, why| EmbedError::Missing {
            dir: dir.to_owned(),
            file,
            why,
        };
        let model = ["model.onnx", "onnx/model.onnx"]
            .map(|file| dir.join(file))
            .into_iter()
            .find(|path| path.is_file())
            .ok_or_else(|| missing("model.onnx or onnx/model.onnx", "the model in the ONNX format"))?;
        let tokenizer = dir.join("tokenizer.json");
        if !tokenizer.is_file() {
            return Err(missing("tokenizer.json", "it turns text into the model's tokens"));
        }
        let list = dir.join("modules.json");
        let modules: Vec<Module> = json(&list)?.ok_or_else(|| {
            missing(
                "modules.json",
                "it lists the model's steps (Transformer, Pooling, Normalize), as sentence-transformers writes it",
            )
        })?;
        let mut pooling = None;
        let mut normalized = false;
        for module in &modules {
            // The package's path changed over its versions, the class's name did not.
            match module.kind.rsplit('.').next() {
                Some("Transformer") => {}
                Some("Pooling") => pooling = Some(dir.join(&module.path).join("config.json")),
                Some("Normalize") => normalized = true,
                _ => {
                    let reason = format!(
                        "the step {} is not supported; Transformer, Pooling and Normalize are",
                        module.kind
                    );
                    return Err(EmbedError::Invalid { path: list, reason });
                }
            }
        }
        let Some(pooling_file) = pooling else {
            let reason = "there is no step Pooling, so how tokens become one vector is not known".to_owned();
            return Err(EmbedError::Invalid { path: list, reason });
        };
        let said: Map<String, Value> = json(&pooling_file)?
            .ok_or_else(|| missing("1_Pooling/config.json", "it says how tokens become one vector"))?;
        let pooling = read_pooling(&said).map_err(|reason| EmbedError::Invalid {
            path: pooling_file.clone(),
            reason,
        })?;
        let dimension = said
            .get("word_embedding_dimension")
            .and_then(Value::as_u64)
            .and_then(|dimension| usize::try_from(dimension).ok());

        let config_file = dir.join("config.json");
        let config: Config = json(&config_file)?.unwrap_or_default();
        let sentence: SentenceConfig = json(&dir.join("sentence_bert_config.json"))?.unwrap_or_default();
        let limits = [sentence.max_seq_length, config.max_position_embeddings];
        let Some(max_tokens) = limits.into_iter().flatten().min() else {
            return Err(missing(
                "max_seq_length in sentence_bert_config.json, nor max_position_embeddings in config.json",
                "the longest text that the model can read is not known",
            ));
        };
        if max_tokens < MIN_TOKENS {
            return Err(EmbedError::Invalid {
                path: config_file,
                reason: format!(
                    "a model that reads {max_tokens} tokens is of no use; at least {MIN_TOKENS} are needed"
                ),
            });
        }
        Ok(Self {
            model,
            tokenizer,
            pooling_file,
            pooling,
            dimension,
            normalized,
            max_tokens: max_tokens.min(MAX_TOKENS),
            pad: config.pad_token_id,
        })
    }

    /// A name for exactly these files: the directory's, and the beginning of a hash over the files that a vector depends
    /// on, so that vectors of a model that was exchanged below the same name are told apart.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub(super) fn name(&self, dir: &Path) -> Result<String, EmbedError> {
        let mut files = vec![self.tokenizer.clone(), self.pooling_file.clone(), self.model.clone()];
        files.extend(self.external_data()?);
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(format!("{:?} {} {}", self.pooling, self.normalized, self.max_tokens).as_bytes());
        for path in files {
            hash_file(&mut hash, &path).map_err(|source| EmbedError::Read { path, source })?;
        }
        let known = dir.canonicalize().map_err(|source| EmbedError::Read {
            path: dir.to_owned(),
            source,
        })?;
        let name = known.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(format!("{name}@{}", &hex::encode(hash.finish())[..12]))
    }

    /// Files beside the graph that hold its weights: `model.onnx_data`, `model.onnx.data`.
    fn external_data(&self) -> Result<Vec<PathBuf>, EmbedError> {
        let dir = self.model.parent().unwrap_or(Path::new("."));
        let failed = |source| EmbedError::Read {
            path: dir.to_owned(),
            source,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("model.onnx") && name != "model.onnx" {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }
}

fn hash_file(hash: &mut ring::digest::Context, path: &Path) -> std::io::Result<()> {
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// The one mode that is on.
fn read_pooling(said: &Map<String, Value>) -> Result<Pooling, String> {
    let flags = said
        .iter()
        .filter(|(_, value)| **value == Value::Bool(true))
        .filter_map(|(key, _)| key.strip_prefix("pooling_mode_"));
    let modes: Vec<&str> = flags.chain(said.get("pooling_mode").and_then(Value::as_str)).collect();
    match modes[..] {
        ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        ["cls_token" | "cls"] => Ok(Pooling::Cls),
        [] => Err("no pooling mode is set; set pooling_mode_mean_tokens or pooling_mode_cls_token".to_owned()),
        _ => Err(format!(
            "the pooling {} is not supported; mean and cls are, alone",
            modes.join(" with ")
        )),
    }
}

/// A file of JSON; `None` when it is not there.
fn json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EmbedError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(EmbedError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| EmbedError::Invalid {
            path: path.to_owned(),
            reason: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    const MODULES: &str = r#"[{"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]"#;
    const MEAN: &str = r#"{"word_embedding_dimension": 4, "pooling_mode_mean_tokens": true}"#;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let whole = [
            ("model.onnx", ""),
            ("tokenizer.json", "{}"),
            ("modules.json", MODULES),
            ("1_Pooling/config.json", MEAN),
            ("config.json", r#"{"max_position_embeddings": 512}"#),
        ];
        let read = |files: &[(&str, &str)]| Layout::read(directory(files).path());
        assert_eq!(read(&whole).unwrap().max_tokens, 512);
        for gone in 0..whole.len() {
            let mut files = whole.to_vec();
            let (name, _) = files.remove(gone);
            let error = read(&files).unwrap_err().to_string();
            assert!(error.contains(name), "{name}: {error}");
        }
        for (name, text, reason) in [
            ("modules.json", "[", "EOF"),
            ("modules.json", "[]", "Pooling"),
            (
                "modules.json",
                r#"[{"type": "sentence_transformers.models.Dense"}]"#,
                "models.Dense is not supported",
            ),
            ("1_Pooling/config.json", "{}", "no pooling mode"),
            (
                "1_Pooling/config.json",
                r#"{"pooling_mode_max_tokens": true}"#,
                "max_tokens is not supported",
            ),
            ("config.json", r#"{"max_position_embeddings": 2}"#, "2 tokens"),
        ] {
            let mut files = whole.to_vec();
            files.retain(|(known, _)| *known != name);
            files.push((name, text));
            let error = read(&files).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn the_shortest_limit_holds() {
        let layout = |sentence: &str, config: &str| {
            let dir = directory(&[
                ("onnx/model.onnx", ""),
                ("tokenizer.json", "{}"),
                ("modules.json", MODULES),
                ("1_Pooling/config.json", MEAN),
                ("sentence_bert_config.json", sentence),
                ("config.json", config),
            ]);
            Layout::read(dir.path()).unwrap().max_tokens
        };
        assert_eq!(
            layout(r#"{"max_seq_length": 256}"#, r#"{"max_position_embeddings": 512}"#),
            256
        );
        assert_eq!(
            layout(r#"{"max_seq_length": null}"#, r#"{"max_position_embeddings": 512}"#),
            512
        );
        assert_eq!(layout(r#"{"max_seq_length": 8192}"#, "{}"), MAX_TOKENS);
    }

    #[test]
    fn poolings_of_old_and_new_files() {
        let read = |value: Value| read_pooling(value.as_object().unwrap());
        let old = json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false, "include_prompt": true});
        assert_eq!(read(old), Ok(Pooling::Cls));
        assert_eq!(read(json!({"pooling_mode": "mean"})), Ok(Pooling::Mean));
        assert!(read(json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true})).is_err());
    }

    #[test]
    fn other_files_have_another_name() {
        let dir = directory(&[
            ("model.onnx", "1"),
            ("tokenizer.json", "{}"),
            ("modules.json", MODULES),
            ("1_Pooling/config.json", MEAN),
            ("config.json", r#"{"max_position_embeddings": 512}"#),
        ]);
        let name = || Layout::read(dir.path()).unwrap().name(dir.path()).unwrap();
        let first = name();
        assert_eq!(first, name());
        assert!(first.starts_with(dir.path().file_name().unwrap().to_str().unwrap()));
        fs::write(dir.path().join("model.onnx_data"), "weights").unwrap();
        let second = name();
        fs::write(dir.path().join("tokenizer.json"), "{ }").unwrap();
        assert!(first != second && second != name());
    }
}
