//! moto, an independent emulator of AWS, as an HTTP server of its own: <https://docs.getmoto.org/en/latest/docs/server_mode.html>

use crate::{repository, run};
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The first start makes the environment.
const PATIENCE: Duration = Duration::from_secs(600);

/// Serves until its standard input ends, which it does with this process, however that ends.
const SERVE: &str = "
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger('werkzeug').setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
server.start()
print('Running on http://%s:%s' % server.get_host_and_port(), flush=True)
sys.stdin.read()
server.stop()
";

/// The environment of the tests' programs in Python, made where it is not there yet.
pub fn python() -> PathBuf {
    static VENV: OnceLock<PathBuf> = OnceLock::new();
    VENV.get_or_init(|| {
        let mut venv = Command::new(repository().join("scripts/venv.sh"));
        venv.arg(repository().join("tests/python/requirements.txt"));
        PathBuf::from(run(&mut venv, None, PATIENCE).ok().trim()).join("bin")
    })
    .clone()
}

/// A server of its own, empty, on a free port; it ends with this value.
pub struct Moto {
    child: Child,
    folder: TempDir,
    url: String,
}

impl Moto {
    /// Starts the server and waits until it listens.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let log = File::create(folder.path().join("log")).expect("a log can be made");
        let child = Command::new(python().join("python"))
            .args(["-c", SERVE])
            .env("AWS_ACCESS_KEY_ID", "moto")
            .env("AWS_SECRET_ACCESS_KEY", "moto")
            .env_remove("AWS_ENDPOINT_URL")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a file handle can be doubled"))
            .stderr(log)
            .spawn()
            .expect("moto_server starts");
        let mut moto = Self {
            child,
            folder,
            url: String::new(),
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = moto.log();
            // The line is whole once another one begins.
            let address = said
                .split_once("Running on ")
                .and_then(|(_, rest)| rest.split_once('\n'));
            if let Some((url, _)) = address {
                moto.url = url.trim().to_owned();
                return moto;
            }
            let ended = moto.child.try_wait().expect("a child can be waited for");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "moto_server: {ended:?} {said}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it has printed: errors of its own are in there.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if let Some(at) = log.find("Traceback").filter(|_| std::thread::panicking()) {
            eprintln!("moto: {}", &log[at..]);
        }
    }
}
