//! Which server a command talks to.

use crate::args::GlobalOptions;
use crate::data_dir::{DataDir, read_key_file};
use crate::failure::{Exit, Failure};
use std::fmt;
use std::path::PathBuf;
use url::Url;

/// Name of the environment variable with the URL of the REST API.
pub const API_VARIABLE: &str = "GRAPHPLANE_API";
/// Name of the environment variable with the API key.
pub const KEY_VARIABLE: &str = "GRAPHPLANE_API_KEY";

/// What is known of this process's surroundings; apart, so that tests can choose them.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Value of [`API_VARIABLE`].
    pub api: Option<String>,
    /// Value of [`KEY_VARIABLE`].
    pub api_key: Option<String>,
    /// The directory that is used when none is named.
    pub default_dir: DataDir,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        Self {
            api: variable(API_VARIABLE),
            api_key: variable(KEY_VARIABLE),
            default_dir: DataDir::default_of_process(),
        }
    }
}

/// An API key. It is never shown: not in messages, not in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// The key itself, for the header of a request.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// The server that a command talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// URL of the REST API, without a `/` at the end.
    pub api: Url,
    /// The key.
    pub key: ApiKey,
    /// The data directory that both were read from; `None` for a server that is somewhere else.
    pub dir: Option<DataDir>,
}

/// Finds the server: `--data-dir`, then `--api`, then `GRAPHPLANE_API`, then the default directory.
///
/// # Errors
/// No server runs on the directory, the URL is not one, or there is no key.
pub fn find(options: &GlobalOptions, around: &Surroundings) -> Result<Server, Failure> {
    let url = options.api.as_ref().or(around.api.as_ref());
    match (&options.data_dir, url) {
        (Some(dir), _) => of_directory(&DataDir::at(dir), options),
        (None, Some(url)) => {
            let key = match (&options.api_key_file, &around.api_key) {
                (Some(file), _) => read_key_file(file)?,
                (None, Some(key)) => key.clone(),
                (None, None) => {
                    return Err(Failure::new(Exit::Denied, format!("there is no API key for {url}"))
                        .advise(format!("set {KEY_VARIABLE}, or name a file with --api-key-file")));
                }
            };
            Ok(Server {
                api: parse_url(url)?,
                key: ApiKey(key),
                dir: None,
            })
        }
        (None, None) => of_directory(&around.default_dir, options),
    }
}

fn of_directory(dir: &DataDir, options: &GlobalOptions) -> Result<Server, Failure> {
    let Some(endpoints) = dir.read_endpoints()? else {
        let (what, advice) = if dir.path().is_dir() {
            (
                "no graphplane is ready on",
                "start it with `make up` or `graphplane up`, or wait until it is ready",
            )
        } else {
            (
                "there is no data directory",
                "name one with --data-dir, or a server with --api or GRAPHPLANE_API",
            )
        };
        return Err(Failure::new(Exit::Unreachable, format!("{what} {}", dir.path().display())).advise(advice));
    };
    let key = match &options.api_key_file {
        Some(file) => read_key_file(file)?,
        None => dir.read_api_key()?,
    };
    Ok(Server {
        api: parse_url(&endpoints.api)?,
        key: ApiKey(key),
        dir: Some(dir.clone()),
    })
}

/// The data directory that `up` uses.
pub fn directory_of_up(options: &GlobalOptions, around: &Surroundings) -> DataDir {
    options
        .data_dir
        .as_ref()
        .map_or_else(|| around.default_dir.clone(), |dir: &PathBuf| DataDir::at(dir))
}

fn parse_url(text: &str) -> Result<Url, Failure> {
    let wrong = || {
        Failure::usage(format!("`{text}` is not the URL of an API"))
            .advise("write it like http://127.0.0.1:8000 or https://graphplane.example.org")
    };
    let mut url = Url::parse(text).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() || url.query().is_some() {
        return Err(wrong());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::data_dir::Endpoints;
    use std::path::Path;

    fn running(path: &Path, port: u16, key: &str) -> DataDir {
        std::fs::create_dir_all(path).unwrap();
        let dir = DataDir::at(path);
        let api = format!("http://127.0.0.1:{port}");
        dir.write_endpoints(&Endpoints {
            kube: "https://127.0.0.1:1".into(),
            api,
        })
        .unwrap();
        std::fs::write(dir.api_key(), key).unwrap();
        dir
    }

    fn around(default_dir: DataDir) -> Surroundings {
        Surroundings {
            api: None,
            api_key: None,
            default_dir,
        }
    }

    #[test]
    fn a_named_directory_wins_over_everything() {
        let root = tempfile::tempdir().unwrap();
        let named = running(&root.path().join("named"), 1, "one");
        let around = Surroundings {
            api: Some("http://elsewhere:2".into()),
            api_key: Some("two".into()),
            default_dir: running(&root.path().join("default"), 3, "three"),
        };
        let options = GlobalOptions {
            data_dir: Some(named.path().into()),
            ..GlobalOptions::default()
        };
        let server = find(&options, &around).unwrap();
        assert_eq!(
            (server.api.as_str(), server.key.expose()),
            ("http://127.0.0.1:1/", "one")
        );
        assert_eq!(server.dir, Some(named));
    }

    #[test]
    fn the_option_wins_over_the_variable_and_that_over_the_default_directory() {
        let root = tempfile::tempdir().unwrap();
        let default_dir = running(root.path(), 3, "three");
        let mut around = around(default_dir.clone());
        let mut options = GlobalOptions::default();
        assert_eq!(find(&options, &around).unwrap().dir, Some(default_dir));
        around.api = Some("https://gp.example.org/base/".into());
        around.api_key = Some("two".into());
        let server = find(&options, &around).unwrap();
        assert_eq!((server.api.as_str(), server.dir), ("https://gp.example.org/base", None));
        options.api = Some("http://localhost:9".into());
        assert_eq!(find(&options, &around).unwrap().api.as_str(), "http://localhost:9/");
    }

    #[test]
    fn a_key_file_wins_over_the_variable() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("key");
        std::fs::write(&file, "of the file\n").unwrap();
        let around = Surroundings {
            api_key: Some("of the variable".into()),
            ..around(DataDir::at(root.path()))
        };
        let options = GlobalOptions {
            api: Some("http://h".into()),
            api_key_file: Some(file),
            ..GlobalOptions::default()
        };
        assert_eq!(find(&options, &around).unwrap().key.expose(), "of the file");
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let around = around(DataDir::at(&root.path().join("absent")));
        let failure = find(&GlobalOptions::default(), &around).unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.message.starts_with("there is no data directory"), "{failure}");
        let options = GlobalOptions {
            data_dir: Some(root.path().into()),
            ..GlobalOptions::default()
        };
        let failure = find(&options, &around).unwrap_err();
        assert!(failure.message.starts_with("no graphplane is ready on"), "{failure}");
        let options = GlobalOptions {
            api: Some("http://h".into()),
            ..GlobalOptions::default()
        };
        assert_eq!(find(&options, &around).unwrap_err().exit, Exit::Denied);
        for wrong in ["localhost:8000", "ftp://h", "http://", "not a url", "http://h/?x=1"] {
            let options = GlobalOptions {
                api: Some(wrong.into()),
                ..GlobalOptions::default()
            };
            let around = Surroundings {
                api_key: Some("k".into()),
                ..around.clone()
            };
            assert_eq!(find(&options, &around).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn the_key_is_not_shown_by_debug_output() {
        let root = tempfile::tempdir().unwrap();
        let server = find(&GlobalOptions::default(), &around(running(root.path(), 1, "secret"))).unwrap();
        assert!(!format!("{server:?}").contains("secret"));
    }
}
