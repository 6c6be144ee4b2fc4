//! The data directory of `graphplane up`, and where it is when nobody says.

use crate::failure::{Exit, Failure};
use crate::files;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Name of the data directory that `make up` makes in the checkout.
pub const LOCAL_NAME: &str = ".graphplane";

/// Where the servers of a running `graphplane up` listen.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// URL of the Kubernetes API.
    pub kube: String,
    /// URL of the REST API.
    pub api: String,
}

/// A data directory; it need not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The directory at `path`, made absolute so that child processes find it from anywhere.
    pub fn at(path: &Path) -> Self {
        Self(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
    }

    /// The directory that is used when none is named: `.graphplane` in the current directory or in the nearest parent
    /// that has one, else `graphplane` in the user's data directory.
    pub fn find(current: &Path, home: Option<&Path>, xdg_data_home: Option<&Path>) -> Self {
        let near = current
            .ancestors()
            .map(|parent| parent.join(LOCAL_NAME))
            .find(|candidate| candidate.is_dir());
        let of_user = || {
            // The XDG specification: a relative path in the variable is to be ignored.
            let data = xdg_data_home.filter(|path| path.is_absolute()).map(Path::to_owned);
            data.or_else(|| home.map(|home| home.join(".local/share")))
                .map(|data| data.join("graphplane"))
        };
        Self::at(&near.or_else(of_user).unwrap_or_else(|| current.join(LOCAL_NAME)))
    }

    /// [`DataDir::find`] with this process's directory and environment.
    pub fn default_of_process() -> Self {
        let current = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let variable = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Self::find(
            &current,
            variable("HOME").as_deref(),
            variable("XDG_DATA_HOME").as_deref(),
        )
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Credentials for `kubectl`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// The key of the REST API.
    pub fn api_key(&self) -> PathBuf {
        self.0.join("api-key")
    }

    /// [`Endpoints`]; it exists while the servers are ready.
    pub fn endpoints(&self) -> PathBuf {
        self.0.join("endpoints.json")
    }

    /// Held by the running `graphplane up`; holds its process id.
    pub fn lock(&self) -> PathBuf {
        self.0.join("up.lock")
    }

    /// Log of the control plane, one JSON object per line.
    pub fn log(&self) -> PathBuf {
        self.0.join("graphplane.log")
    }

    /// The object store, as a directory.
    pub fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    /// What a running `graphplane up` wrote; `None` while none is ready.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn read_endpoints(&self) -> Result<Option<Endpoints>, Failure> {
        let path = self.endpoints();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::io(format_args!("reading {}", path.display()), &error)),
        };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            Failure::plain(format!(
                "{} is not what `graphplane up` writes: {error}",
                path.display()
            ))
            .advise("stop `graphplane up` and start it again")
        })
    }

    /// Writes where the servers listen.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_endpoints(&self, endpoints: &Endpoints) -> Result<(), Failure> {
        let text = serde_json::to_string(endpoints).map_err(|error| Failure::plain(error.to_string()))?;
        files::write_private(&self.endpoints(), &(text + "\n"))
    }

    /// The key of the REST API.
    ///
    /// # Errors
    /// No `graphplane up` ever ran here, or the file belongs to somebody else.
    pub fn read_api_key(&self) -> Result<String, Failure> {
        read_key_file(&self.api_key())
    }
}

/// Reads a file that holds an API key and nothing else.
///
/// # Errors
/// The file cannot be read or is empty. The message never holds the file's content.
pub fn read_key_file(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure {
        exit: Exit::Denied,
        ..Failure::io(format_args!("reading the API key from {}", path.display()), &error)
    })?;
    let key = text.trim();
    if key.is_empty() {
        return Err(Failure::new(
            Exit::Denied,
            format!("{} holds no API key", path.display()),
        ));
    }
    Ok(key.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_nearest_parent_with_a_data_directory_wins() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::create_dir_all(root.path().join(LOCAL_NAME)).unwrap();
        let home = root.path().join("home");
        assert_eq!(
            DataDir::find(&deep, Some(&home), None).path(),
            root.path().join(LOCAL_NAME)
        );
        std::fs::create_dir_all(root.path().join("a/b").join(LOCAL_NAME)).unwrap();
        assert_eq!(
            DataDir::find(&deep, Some(&home), None).path(),
            root.path().join("a/b").join(LOCAL_NAME)
        );
    }

    #[test]
    fn without_one_it_is_the_users_data_directory() {
        let root = tempfile::tempdir().unwrap();
        let (home, xdg) = (root.path().join("home"), root.path().join("xdg"));
        let find = |home: Option<&Path>, xdg: Option<&Path>| DataDir::find(root.path(), home, xdg).path().to_owned();
        assert_eq!(find(Some(&home), Some(&xdg)), xdg.join("graphplane"));
        assert_eq!(
            find(Some(&home), Some(Path::new("relative"))),
            home.join(".local/share/graphplane")
        );
        assert_eq!(find(Some(&home), None), home.join(".local/share/graphplane"));
        assert_eq!(find(None, None), root.path().join(LOCAL_NAME));
    }

    #[test]
    fn endpoints_are_absent_until_written() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::at(root.path());
        assert_eq!(dir.read_endpoints().unwrap(), None);
        let endpoints = Endpoints {
            kube: "https://127.0.0.1:1".into(),
            api: "http://127.0.0.1:2".into(),
        };
        dir.write_endpoints(&endpoints).unwrap();
        assert_eq!(dir.read_endpoints().unwrap(), Some(endpoints));
        std::fs::write(dir.endpoints(), "{}").unwrap();
        assert!(dir.read_endpoints().unwrap_err().message.contains("endpoints.json"));
    }

    #[test]
    fn a_key_file_may_end_with_a_newline_and_may_not_be_empty() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::at(root.path());
        assert_eq!(dir.read_api_key().unwrap_err().exit, Exit::Denied);
        std::fs::write(dir.api_key(), "gp_secret\n").unwrap();
        assert_eq!(dir.read_api_key().unwrap(), "gp_secret");
        std::fs::write(dir.api_key(), "\n").unwrap();
        assert!(dir.read_api_key().unwrap_err().message.ends_with("holds no API key"));
    }
}
