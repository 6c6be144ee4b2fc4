//! Point queries by primary key over HTTP keep-alive, the load generator on the same cores, and `/health` during a
//! long query.
//!
//! The generator writes prepared bytes and reads answers by their Content-Length, so that most of the machine is left to
//! the agent; every answer's status is checked.

use crate::{Result, agent::Agent, samples::Samples};
use rand::RngExt;
use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const GRAPH: &str = "kg0000000000000001";
const ROWS: usize = 100_000;
const DURATION: Duration = Duration::from_secs(10);

/// A connection that sends prepared requests and reads whole answers.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(4096),
        })
    }

    async fn send(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let (head, length) = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the agent closed the connection".into());
            }
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.buffer[..end])?;
                if !head.starts_with("HTTP/1.1 200") {
                    return Err(format!("the agent answered {}", String::from_utf8_lossy(&self.buffer)).into());
                }
                let length = head
                    .lines()
                    .filter_map(|line| line.split_once(':'))
                    .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                    .ok_or("an answer without Content-Length")?;
                break (end + 4, length.1.trim().parse::<usize>()?);
            }
        };
        while self.buffer.len() < head + length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the agent closed the connection".into());
            }
        }
        Ok(())
    }
}

async fn client(agent_address: SocketAddr, requests: std::sync::Arc<Vec<Vec<u8>>>, until: Instant) -> Result<Samples> {
    let mut connection = Connection::open(agent_address).await?;
    let mut samples = Samples::default();
    while Instant::now() < until {
        let request = &requests[rand::rng().random_range(0..requests.len())];
        let started = Instant::now();
        connection.send(request).await?;
        samples.push(started.elapsed());
    }
    Ok(samples)
}

async fn load(agent: &Agent, clients: usize) -> Result<()> {
    let path = format!("/databases/{GRAPH}/query");
    let requests: Vec<Vec<u8>> = (0..2000)
        .map(|n| {
            let id = n * (ROWS / 2000);
            let body = format!(
                r#"{{"database":"{GRAPH}","cypher":"MATCH (n:N) WHERE n.id = $id RETURN n.name","parameters":{{"id":{id}}}}}"#
            );
            agent.raw("POST", &path, &body)
        })
        .collect();
    let requests = std::sync::Arc::new(requests);
    let started = Instant::now();
    let running: Vec<_> = (0..clients)
        .map(|_| tokio::spawn(client(agent.address, requests.clone(), started + DURATION)))
        .collect();
    let mut samples = Samples::default();
    for client in running {
        samples.extend(client.await??);
    }
    let rate = samples.len() as f64 / started.elapsed().as_secs_f64();
    println!(
        "| point query by primary key over HTTP, {clients} clients | {rate:.0}/s, {} |",
        samples.summary()
    );
    Ok(())
}

async fn health_during_a_long_query(agent: &Agent) -> Result<()> {
    let long =
        r#"{"database":"kg0000000000000001","cypher":"MATCH (a:N), (b:N) WHERE a.id + b.id < 0 RETURN count(*)"}"#;
    let request = agent.raw("POST", &format!("/databases/{GRAPH}/query"), long);
    let address = agent.address;
    // It is stopped by the query timeout, if the machine does not finish it first; either is long enough.
    let query = tokio::spawn(async move { Connection::open(address).await?.send(&request).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut connection = Connection::open(agent.address).await?;
    let health = agent.raw("GET", "/health", "");
    let mut samples = Samples::default();
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until && !query.is_finished() {
        let started = Instant::now();
        connection.send(&health).await?;
        samples.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seconds = 8.0 - until.saturating_duration_since(Instant::now()).as_secs_f64();
    query.abort();
    println!(
        "| /health while a query runs for {seconds:.1} s, {} calls | {} |",
        samples.len(),
        samples.summary()
    );
    Ok(())
}

/// Prints the rates.
pub(crate) async fn run(bin: &Path) -> Result<()> {
    let agent = Agent::start(bin).await?;
    let create = serde_json::json!({
        "graph_id": GRAPH, "schema_type": "custom",
        "custom_schema_ddl": "CREATE NODE TABLE N(id INT64 PRIMARY KEY, name STRING);",
    });
    agent.post("/databases", &create).await?;
    let fill = format!(
        "UNWIND range(0, {}) AS i CREATE (:N {{id: i, name: 'name ' + CAST(i AS STRING)}})",
        ROWS - 1
    );
    agent.query(GRAPH, &fill).await?;
    for clients in [1, 4, 16, 64] {
        load(&agent, clients).await?;
    }
    health_during_a_long_query(&agent).await
}
