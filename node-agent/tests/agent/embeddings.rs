//! Vectors of texts, held to those that ONNX Runtime gets from the same models (`tests/models/generate.py`).

use crate::fixture::{Agent, KEY};
use graphplane_node_agent::embed::{Embedder, OnnxEmbedder};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    vectors: Vec<Vec<f32>>,
}

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name)
}

fn expected(name: &str) -> Expected {
    serde_json::from_slice(&fs::read(model(name).join("expected.json")).unwrap()).unwrap()
}

fn assert_close(seen: &[f32], wanted: &[f32], text: &str) {
    assert_eq!(seen.len(), wanted.len(), "{text}");
    for (seen, wanted) in seen.iter().zip(wanted) {
        assert!((seen - wanted).abs() < 1e-4, "{text}: {seen} instead of {wanted}");
    }
}

/// A copy of a model's directory, without one file.
fn copy(from: &Path, to: &Path, without: &str) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target, without);
        } else if name != without {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn vectors_are_those_of_another_runtime() {
    for (name, dimension) in [("mean", 32), ("cls", 16)] {
        let embedder = OnnxEmbedder::open(&model(name)).unwrap();
        let Expected { texts, vectors } = expected(name);
        assert_eq!(embedder.dimension(), dimension);
        assert!(
            embedder.model().starts_with(&format!("{name}@")),
            "{}",
            embedder.model()
        );

        // Alone, and in batches with longer and shorter ones: padding must not be seen in a vector.
        for (text, vector) in texts.iter().zip(&vectors) {
            assert_close(&embedder.embed(&[text]).unwrap()[0], vector, text);
        }
        let many: Vec<&str> = texts.iter().map(String::as_str).cycle().take(100).collect();
        let seen = embedder.embed(&many).unwrap();
        assert_eq!(seen.len(), many.len());
        for ((seen, vector), text) in seen.iter().zip(vectors.iter().cycle()).zip(&many) {
            assert_close(seen, vector, text);
        }
        assert!(embedder.embed(&[]).unwrap().is_empty());
    }
}

#[test]
fn a_model_that_does_not_fit_together_is_refused() {
    let dir = TempDir::new().unwrap();
    copy(&model("mean"), dir.path(), "");
    let refused = |file: &str, text: &[u8], why: &str| {
        let path = dir.path().join(file);
        let good = fs::read(&path).unwrap();
        fs::write(&path, text).unwrap();
        let error = OnnxEmbedder::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(file) && error.contains(why), "{error}");
        fs::write(&path, good).unwrap();
    };
    refused("model.onnx", b"not a model", "");
    refused("tokenizer.json", b"{}", "");
    let other = br#"{"word_embedding_dimension": 384, "pooling_mode_mean_tokens": true}"#;
    refused("1_Pooling/config.json", other, "have 32 numbers");
    OnnxEmbedder::open(dir.path()).unwrap();
}

#[tokio::test]
async fn texts_are_embedded_over_http() {
    let agent = Agent::with(&["--embedding-model", model("mean").to_str().unwrap()]).await;
    let Expected { texts, vectors } = expected("mean");
    let info = agent.get("/info").await.ok()["embeddings"].clone();
    assert_eq!((&info["configured"], &info["dimension"]), (&json!(true), &json!(32)));

    let answer = agent.post("/embeddings", json!({"texts": texts})).await.ok();
    assert_eq!((&answer["model"], &answer["dimension"]), (&info["model"], &json!(32)));
    let seen: Vec<Vec<f32>> = serde_json::from_value(answer["embeddings"].clone()).unwrap();
    assert_eq!(seen.len(), vectors.len());
    for ((seen, vector), text) in seen.iter().zip(&vectors).zip(&texts) {
        assert_close(seen, vector, text);
    }

    let most = agent
        .post("/embeddings", json!({"texts": vec!["graph"; 256]}))
        .await
        .ok();
    assert_eq!(most["embeddings"].as_array().unwrap().len(), 256);
    agent
        .post("/embeddings", json!({"texts": ["ü".repeat(32_768)]}))
        .await
        .ok();
    for wrong in [
        json!({}),
        json!({"texts": []}),
        json!({"texts": "graph"}),
        json!({"texts": ["graph", 1]}),
        json!({"texts": vec!["graph"; 257]}),
        json!({"texts": ["ü".repeat(32_769)]}),
        json!({"texts": ["graph"], "model": "another"}),
    ] {
        agent.post("/embeddings", wrong).await.fails(422);
    }
    let nobody = agent
        .bare(Method::POST, "/embeddings")
        .json(&json!({"texts": ["graph"]}));
    assert_eq!(nobody.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn without_a_model_the_answer_says_so() {
    let agent = Agent::start().await;
    let info = agent.get("/info").await.ok()["embeddings"].clone();
    assert_eq!(info, json!({"configured": false, "model": null, "dimension": null}));
    let detail = agent.post("/embeddings", json!({"texts": ["graph"]})).await.fails(501);
    assert!(detail.as_str().unwrap().contains("--embedding-model"), "{detail}");
}

#[test]
fn an_agent_does_not_start_with_half_a_model() {
    let dir = TempDir::new().unwrap();
    let half = dir.path().join("half");
    copy(&model("cls"), &half, "tokenizer.json");
    let ended = Command::new(env!("CARGO_BIN_EXE_graphplane-node-agent"))
        .args(["--port", "0", "--data-dir"])
        .arg(dir.path().join("volume"))
        .env("GRAPH_API_KEY", KEY)
        .env("GRAPHPLANE_EMBEDDING_MODEL", &half)
        .output()
        .unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        said.contains("--embedding-model") && said.contains("has no tokenizer.json"),
        "{said}"
    );
}
