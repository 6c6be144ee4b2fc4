//! What stands between the operator and moto: it writes down every call, adds what moto lacks (`rules`), and fails calls
//! as a plan says.

use super::call::{Answer, Call};
use super::cloud::Cloud;
use super::rules::{self, Knobs, Rule};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, runtime::Handle};

/// Access key of the operator under test.
pub const OPERATOR: &str = "AKIAOPERATOR";

/// Access key of its machines.
pub const MACHINE: &str = "AKIAMACHINE";

/// How one call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not made: there were too many.
    Throttle,
    /// Made, and answered with an error of the service.
    FailAfter,
    /// Made, and the connection breaks before the answer.
    BreakAfter,
}

/// On which side of a call the operator is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The call is not made.
    Before,
    /// The call is made, the answer never arrives.
    After,
}

/// A call of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When it arrived, from the proxy's start.
    pub at: Duration,
    /// What was asked.
    pub call: Call,
    /// Tags that the things which it names had before it.
    pub tags: BTreeMap<String, BTreeMap<String, String>>,
    /// What was answered, or would have been.
    pub answer: Answer,
    /// How it was made to fail.
    pub fault: Option<Fault>,
    /// Whether it reached moto or a rule; a throttled call did not.
    pub made: bool,
}

/// A call that waits, with the operator, until this is dropped.
pub struct Hold {
    reached: Receiver<String>,
    _release: Sender<()>,
}

impl Hold {
    /// The name of the call once it has come; nothing if it does not come within `limit`.
    pub fn wait(&self, limit: Duration) -> Option<String> {
        self.reached.recv_timeout(limit).ok()
    }
}

struct Gate {
    side: Side,
    reached: Sender<String>,
    release: Receiver<()>,
}

impl Gate {
    /// Waits until the test is done; false if nobody waits for the call any more.
    fn hold(&self, action: &str) -> bool {
        let waited_for = self.reached.send(action.to_owned()).is_ok();
        if waited_for {
            // The end of the wait is that the other side is dropped.
            let _ = self.release.recv();
        }
        waited_for
    }
}

#[derive(Default)]
struct Inner {
    log: Vec<Entry>,
    rules: Vec<Box<dyn Rule>>,
    /// Changing calls of the operator so far.
    changes: usize,
    faults: BTreeMap<usize, Fault>,
    gates: BTreeMap<usize, Gate>,
}

/// The proxy. It serves until its runtime ends.
#[derive(Clone)]
pub struct Proxy {
    inner: Arc<Mutex<Inner>>,
    knobs: Arc<Mutex<Knobs>>,
    cloud: Cloud,
    url: String,
    started: Instant,
}

enum Outcome {
    Answer(Answer),
    Broken,
}

impl Proxy {
    /// Starts a proxy before moto on a free port.
    pub fn start(cloud: &Cloud, runtime: &Handle) -> Self {
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a free port can be bound");
        let address = listener.local_addr().expect("a bound port has an address");
        let knobs = Arc::new(Mutex::new(Knobs::default()));
        let proxy = Self {
            inner: Arc::new(Mutex::new(Inner {
                rules: rules::all(&knobs),
                ..Inner::default()
            })),
            knobs,
            cloud: cloud.clone(),
            url: format!("http://{address}"),
            started: Instant::now(),
        };
        let app = Router::new().fallback(serve).with_state(proxy.clone());
        runtime.spawn(async move { axum::serve(listener, app).await });
        proxy
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the rules can be told.
    pub fn set(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut self.knobs.lock());
    }

    /// How long it has run: the time of its log.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Every call so far.
    pub fn log(&self) -> Vec<Entry> {
        self.inner.lock().log.clone()
    }

    /// How many changing calls the operator has made.
    pub fn changes(&self) -> usize {
        self.inner.lock().changes
    }

    /// Lets the operator's changing call of that number (from 0) go wrong, once.
    pub fn fail(&self, number: usize, fault: Fault) {
        self.inner.lock().faults.insert(number, fault);
    }

    /// Holds the operator's changing call of that number (from 0). Meanwhile nobody else is answered but of S3.
    pub fn hold(&self, number: usize, side: Side) -> Hold {
        let (reached_by, reached) = channel();
        let (hold, release) = channel();
        let gate = Gate {
            side,
            reached: reached_by,
            release,
        };
        self.inner.lock().gates.insert(number, gate);
        Hold {
            reached,
            _release: hold,
        }
    }

    fn handle(&self, mut call: Call) -> Outcome {
        let at = self.now();
        if call.service == "s3" {
            // What goes to S3 is large and of no consequence to others: it does not wait for them.
            let answer = self.forward(&call);
            let tags = BTreeMap::new();
            self.inner.lock().write(at, call, tags, answer.clone(), None, true);
            return Outcome::Answer(answer);
        }
        // One call at a time, so that the log has one order.
        let mut inner = self.inner.lock();
        let ids = ids(&call);
        let tags = match call.service == "ec2" && call.changes() && !ids.is_empty() {
            true => self.cloud.tags(&ids),
            false => BTreeMap::new(),
        };
        let (mut fault, mut gate): (Option<Fault>, Option<Gate>) = (None, None);
        if call.caller == OPERATOR && call.changes() {
            let number = inner.changes;
            inner.changes += 1;
            fault = inner.faults.remove(&number);
            gate = inner.gates.remove(&number);
        }
        if fault == Some(Fault::Throttle) {
            let answer = call.throttle();
            inner.write(at, call, tags, answer.clone(), fault, false);
            return Outcome::Answer(answer);
        }
        if gate
            .as_ref()
            .is_some_and(|gate| gate.side == Side::Before && gate.hold(&call.action))
        {
            return Outcome::Broken;
        }
        let asked = call.clone();
        let refused = inner
            .rules
            .iter_mut()
            .find_map(|rule| rule.before(&mut call, &self.cloud));
        let answer = refused.unwrap_or_else(|| {
            let mut answer = self.forward(&call);
            for rule in inner.rules.iter_mut().rev() {
                rule.after(&call, &mut answer, &self.cloud);
            }
            answer
        });
        inner.write(at, asked, tags, answer.clone(), fault, true);
        if gate.is_some_and(|gate| gate.side == Side::After && gate.hold(&call.action)) {
            return Outcome::Broken;
        }
        match fault {
            Some(Fault::BreakAfter) => Outcome::Broken,
            Some(_) => Outcome::Answer(call.refuse(500, "InternalError", "An internal error has occurred.")),
            None => Outcome::Answer(answer),
        }
    }

    fn forward(&self, call: &Call) -> Answer {
        let failed = |error: String| call.refuse(500, "InternalFailure", &error);
        self.cloud.forward(call).unwrap_or_else(failed)
    }
}

impl Inner {
    fn write(
        &mut self,
        at: Duration,
        call: Call,
        tags: BTreeMap<String, BTreeMap<String, String>>,
        answer: Answer,
        fault: Option<Fault>,
        made: bool,
    ) {
        self.log.push(Entry {
            at,
            call,
            tags,
            // Objects would fill the memory, and nobody looks at them.
            answer: answer.without_objects(),
            fault,
            made,
        });
    }
}

/// The things of EC2 that a call names.
fn ids(call: &Call) -> Vec<String> {
    const KINDS: [&str; 4] = ["i-", "vol-", "snap-", "lt-"];
    let named = call.params.iter().filter(|(key, _)| !key.starts_with("Tag"));
    let values = named.map(|(_, value)| value.clone());
    values
        .filter(|value| KINDS.iter().any(|kind| value.starts_with(kind)))
        .collect()
}

async fn serve(State(proxy): State<Proxy>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return broken();
    };
    let call = Call::read(parts.method, parts.uri, parts.headers, body);
    match tokio::task::spawn_blocking(move || proxy.handle(call)).await {
        Ok(Outcome::Answer(answer)) => {
            let mut response = Response::new(Body::from(answer.body));
            *response.status_mut() = axum::http::StatusCode::from_u16(answer.status).unwrap_or_default();
            *response.headers_mut() = answer.headers;
            for name in ["transfer-encoding", "connection"] {
                response.headers_mut().remove(name);
            }
            response
        }
        Ok(Outcome::Broken) | Err(_) => broken(),
    }
}

/// An answer that ends in the middle of its head's promise: for the caller, the connection broke.
fn broken() -> Response {
    let cut = futures::stream::once(async { Err::<bytes::Bytes, _>(io::Error::other("cut")) });
    Response::new(Body::from_stream(cut))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::moto::Moto;
    use tokio::runtime::Runtime;

    const LIMIT: Duration = Duration::from_secs(60);

    fn make(aws: &Cloud) -> Result<Answer, String> {
        aws.try_call(
            "ec2",
            "CreateVolume",
            &[("AvailabilityZone", "eu-central-1a"), ("Size", "10")],
        )
    }

    #[test]
    fn calls_go_wrong_as_planned_and_are_written_down() {
        let runtime = Runtime::new().unwrap();
        let moto = Moto::start();
        let cloud = Cloud::new(moto.url(), runtime.handle());
        let proxy = Proxy::start(&cloud, runtime.handle());
        let operator = Cloud::new(proxy.url(), runtime.handle()).with_key(OPERATOR);
        let volumes = || cloud.call("ec2", "DescribeVolumes", &[]).texts("volumeId").len();
        let code = |answer: Result<Answer, String>| answer.unwrap().code();

        proxy.fail(0, Fault::Throttle);
        proxy.fail(1, Fault::FailAfter);
        proxy.fail(2, Fault::BreakAfter);
        assert_eq!(
            (code(make(&operator)).as_deref(), volumes()),
            (Some("RequestLimitExceeded"), 0)
        );
        assert_eq!(
            (code(make(&operator)).as_deref(), volumes()),
            (Some("InternalError"), 1)
        );
        assert!(make(&operator).is_err());
        assert_eq!(volumes(), 2);
        assert_eq!((code(make(&operator)), volumes()), (None, 3));
        let faults: Vec<Option<Fault>> = proxy.log().iter().map(|entry| entry.fault).collect();
        let planned = [
            Some(Fault::Throttle),
            Some(Fault::FailAfter),
            Some(Fault::BreakAfter),
            None,
        ];
        assert_eq!(faults, planned);
        assert!(!proxy.log()[0].made && proxy.log()[1].made);

        // Who reads, and who is not the operator, has no part in it.
        operator.call("ec2", "DescribeVolumes", &[]);
        make(&Cloud::new(proxy.url(), runtime.handle())).unwrap();
        assert_eq!((proxy.changes(), volumes()), (4, 4));

        for (side, made) in [(Side::Before, 4), (Side::After, 5)] {
            let hold = proxy.hold(proxy.changes(), side);
            let caller = operator.clone();
            let call = std::thread::spawn(move || make(&caller));
            assert_eq!(hold.wait(LIMIT).as_deref(), Some("CreateVolume"));
            assert_eq!(volumes(), made);
            drop(hold);
            assert!(call.join().unwrap().is_err());
        }
        drop(proxy.hold(proxy.changes(), Side::Before));
        assert_eq!((code(make(&operator)), volumes()), (None, 6), "nobody waits for it");
    }
}
