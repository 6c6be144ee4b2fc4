//! What `graphplane up` prints when it is ready: where everything is and what to type next.

use crate::data_dir::{DataDir, Endpoints};
use std::ffi::OsStr;
use std::path::Path;

/// How this program is called from the current directory: by its name if it is in `PATH`, by the link that `make up`
/// makes in a checkout, else as it was called.
pub(super) fn program(path: Option<&OsStr>, current: &Path, called: Option<String>) -> String {
    let in_path =
        path.is_some_and(|path| std::env::split_paths(path).any(|folder| folder.join("graphplane").is_file()));
    if in_path {
        "graphplane".to_owned()
    } else if current.join("bin/graphplane").is_file() {
        "bin/graphplane".to_owned()
    } else {
        called.map_or("graphplane".to_owned(), |called| shell_word(&called))
    }
}

/// The text, for a terminal of any width.
pub(super) fn ready_text(dir: &DataDir, endpoints: &Endpoints, tiers: &[String], program: &str) -> String {
    let kubeconfig = shell_word(&dir.kubeconfig().display().to_string());
    let data_dir = shell_word(&dir.path().display().to_string());
    let key = shell_word(&dir.api_key().display().to_string());
    let (api, kube) = (&endpoints.api, &endpoints.kube);
    let tiers = if tiers.is_empty() {
        "none yet".to_owned()
    } else {
        tiers.join(", ")
    };
    format!(
        "\
Graphplane is ready.

  REST API        {api}/v1    (Swagger UI: {api}/docs)
  Kubernetes API  {kube}
  Data            {data_dir}
  Tiers           {tiers}

Next, in another terminal:

  export KUBECONFIG={kubeconfig}
  kubectl apply -f examples/airports/graph.yaml
  kubectl wait --for=condition=Ready graph/airports
  {program} --data-dir {data_dir} load airports examples/airports/
  {program} --data-dir {data_dir} query airports 'MATCH (a:Airport) RETURN count(*) AS airports'
  curl -H \"Authorization: Bearer $(cat {key})\" {api}/v1/graphs

Ctrl-C stops it; the next start continues where it was.
"
    )
}

/// The text as one word of a POSIX shell.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_printed_can_be_pasted_into_a_shell() {
        let dir = DataDir::at(Path::new("/data/my graphs"));
        let endpoints = Endpoints {
            kube: "https://127.0.0.1:6443".into(),
            api: "http://127.0.0.1:8000".into(),
        };
        let text = ready_text(&dir, &endpoints, &["ladybug-standard".into()], "bin/graphplane");
        assert!(
            text.contains("export KUBECONFIG='/data/my graphs/kubeconfig'\n"),
            "{text}"
        );
        assert!(text.contains("http://127.0.0.1:8000/v1 "), "{text}");
        assert!(text.contains("ladybug-standard"), "{text}");
        assert!(
            text.contains("  bin/graphplane --data-dir '/data/my graphs' load airports"),
            "{text}"
        );
        assert!(!text.contains("gp_"), "the key itself is never printed");
    }

    #[test]
    fn the_program_is_called_as_it_can_be_called() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        let called = || Some("/opt/my tools/graphplane".to_owned());
        assert_eq!(program(None, root.path(), called()), "'/opt/my tools/graphplane'");
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(bin.join("graphplane"), "").unwrap();
        assert_eq!(program(None, root.path(), called()), "bin/graphplane");
        assert_eq!(program(Some(bin.as_os_str()), root.path(), called()), "graphplane");
    }

    #[test]
    fn words_with_quotes_stay_one_word() {
        assert_eq!(shell_word("/plain/path-1.2"), "/plain/path-1.2");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("$(x)"), "'$(x)'");
    }
}
