//! The real kubectl, over TLS, with nothing but a kubeconfig.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::{Fixture, PATIENCE, WIDGETS, contains, widget};
use http::Method;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

const WIDGET: &str = "apiVersion: test.dev/v1\nkind: Widget\nmetadata:\n  name: web\n  labels: {app: web}\nspec:\n  color: green\n  size: 4\n";

async fn with_widget() -> Fixture {
    let f = Fixture::served().await;
    f.kubectl_with(&["apply", "-f", "-"], WIDGET).await.ok();
    f
}

#[tokio::test]
async fn apply_client_side() {
    let f = Fixture::served().await;
    let apply = async |text: &str| f.kubectl_with(&["apply", "-f", "-"], text).await.ok();
    contains(&apply(WIDGET).await, "widget.test.dev/web created");
    contains(&apply(WIDGET).await, "widget.test.dev/web unchanged");
    contains(
        &apply(&WIDGET.replace("size: 4", "size: 6")).await,
        "widget.test.dev/web configured",
    );
    assert_eq!(f.get(&format!("{WIDGETS}/web")).await["spec"]["size"], 6);
    // A field that is no longer in the manifest goes.
    let bigger = WIDGET.replace("size: 4", "size: 6");
    apply(&format!("{bigger}  labels: {{a: b}}\n")).await;
    assert_eq!(
        f.get(&format!("{WIDGETS}/web")).await["spec"]["labels"],
        json!({"a": "b"})
    );
    apply(&bigger).await;
    assert!(f.get(&format!("{WIDGETS}/web")).await["spec"].get("labels").is_none());
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '1', b: '2'}\n";
    contains(&apply(config).await, "configmap/c created");
    contains(&apply(&config.replace(", b: '2'", "")).await, "configmap/c configured");
    assert_eq!(
        f.get("/api/v1/namespaces/default/configmaps/c").await["data"],
        json!({"a": "1"})
    );
    let bad = f
        .kubectl_with(&["apply", "-f", "-"], &WIDGET.replace("green", "pink"))
        .await;
    bad.failed_with("spec.color: Unsupported value: \"pink\": supported values: \"red\", \"green\", \"blue\"");
    let unknown = f
        .kubectl_with(&["apply", "-f", "-"], &format!("{WIDGET}  colour: red\n"))
        .await;
    unknown.failed_with("unknown field \"spec.colour\"");
    f.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &WIDGET.replace("web", "dry"))
        .await
        .ok();
    f.kubectl(&["get", "widget", "dry"])
        .await
        .failed_with("widgets.test.dev \"dry\" not found");
    f.kubectl_with(
        &[
            "apply",
            "--prune",
            "-l",
            "app=web",
            "--prune-allowlist=test.dev/v1/Widget",
            "-f",
            "-",
        ],
        &WIDGET.replace("name: web", "name: other").replace("size: 4", "size: 6"),
    )
    .await
    .ok();
    f.gone(&format!("{WIDGETS}/web")).await;
}

#[tokio::test]
async fn apply_server_side() {
    let f = Fixture::served().await;
    let apply = async |manager: &str, text: &str, more: &[&str]| {
        let manager = format!("--field-manager={manager}");
        let args: Vec<&str> = ["apply", "--server-side", &manager, "-f", "-"]
            .iter()
            .chain(more)
            .copied()
            .collect();
        f.kubectl_with(&args, text).await
    };
    contains(
        &apply("one", WIDGET, &[]).await.ok(),
        "widget.test.dev/web serverside-applied",
    );
    let bigger = WIDGET.replace("size: 4", "size: 8");
    apply("two", &bigger, &[])
        .await
        .failed_with("conflict with \"one\": .spec.size");
    apply("two", &bigger, &["--force-conflicts"]).await.ok();
    assert_eq!(f.get(&format!("{WIDGETS}/web")).await["spec"]["size"], 8);
    let fields = f
        .kubectl_ok(&["get", "widget", "web", "-o", "yaml", "--show-managed-fields"])
        .await;
    contains(&fields, "manager: two");
    contains(&fields, "f:color");
}

#[tokio::test]
async fn fields_that_are_not_declared() {
    let f = Fixture::served().await;
    let strange = WIDGET.replace("size: 4", "size: 4\n  colour: red");
    let run = async |args: &[&str]| f.kubectl_with(&[args, &["-f", "-"]].concat(), &strange).await;
    let sentence = "strict decoding error: unknown field \"spec.colour\"";
    let body = format!("Widget in version \"v1\" cannot be handled as a Widget: {sentence}");
    run(&["create"]).await.failed_with(&body);
    // kubectl apply is strict by default.
    run(&["apply"]).await.failed_with(&body);
    f.gone(&format!("{WIDGETS}/web")).await;
    let created = run(&["create", "--validate=warn"]).await;
    contains(&created.err, "Warning: unknown field \"spec.colour\"");
    created.ok();

    run(&["replace"]).await.failed_with(&body);
    let patched = run(&["apply"]).await;
    patched.failed_with("is invalid: patch: Invalid value: \"{");
    patched.failed_with(sentence);
    let ignored = run(&["apply", "--validate=ignore"]).await;
    assert!(!ignored.err.contains("unknown field"), "{}", ignored.err);
    ignored.ok();
    // kubectl patch leaves the choice to the server, which warns.
    let merged = f
        .kubectl(&[
            "patch",
            "wd",
            "web",
            "--type=merge",
            "-p",
            r#"{"spec": {"colour": "red", "size": 5}}"#,
        ])
        .await;
    contains(&merged.err, "Warning: unknown field \"spec.colour\"");
    merged.ok();
    let stored = f.get(&format!("{WIDGETS}/web")).await;
    assert_eq!(
        (&stored["spec"]["size"], stored["spec"].get("colour")),
        (&json!(5), None)
    );

    // Server-side apply has to know every field that it shall own.
    for validate in ["--validate=strict", "--validate=warn", "--validate=ignore"] {
        run(&["apply", "--server-side", validate]).await.failed_with(
            "failed to create typed patch object (default/web; test.dev/v1, Kind=Widget): .spec.colour: field not declared in schema",
        );
    }
}

#[tokio::test]
async fn get_in_every_format() {
    let f = with_widget().await;
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    f.call(Method::PATCH, &format!("{WIDGETS}/web/status"), Some(&status))
        .await;
    let table = f.kubectl_ok(&["get", "widgets"]).await;
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "READY", "COLOR", "AGE"]);
    assert_eq!(lines[1][..3], ["web", "True", "green"]);
    let wide = f.kubectl_ok(&["get", "wd", "-o", "wide"]).await;
    contains(wide.lines().next().unwrap(), "REPLICAS");
    contains(
        &f.kubectl_ok(&["get", "testing", "-A", "--show-labels"]).await,
        "app=web",
    );
    contains(
        &f.kubectl_ok(&["get", "widget/web", "-o", "yaml"]).await,
        "color: green",
    );
    let json: serde_json::Value = serde_json::from_str(&f.kubectl_ok(&["get", "widgets", "-o", "json"]).await).unwrap();
    assert_eq!(json["items"][0]["spec"]["size"], 4);
    let path = "jsonpath={.items[*].spec.color}/{.items[0].metadata.name}";
    assert_eq!(f.kubectl_ok(&["get", "widgets", "-o", path]).await, "green/web");
    assert_eq!(
        f.kubectl_ok(&["get", "widgets", "-o", "name"]).await,
        "widget.test.dev/web\n"
    );
    let columns = "custom-columns=N:.metadata.name,R:.spec.replicas";
    contains(&f.kubectl_ok(&["get", "widgets", "-o", columns]).await, "web");
    contains(
        &f.kubectl_ok(&["get", "widgets", "-l", "app in (web,db)", "--sort-by=.spec.size"])
            .await,
        "web",
    );
    contains(
        &f.kubectl(&["get", "widgets", "-l", "app=db"]).await.err,
        "No resources found in default namespace",
    );
    contains(
        &f.kubectl_ok(&["get", "widgets", "--field-selector", "spec.color=green"])
            .await,
        "web",
    );
    contains(&f.kubectl_ok(&["get", "ns"]).await, "graphplane-system");
    contains(&f.kubectl_ok(&["get", "crd"]).await, "widgets.test.dev");
    f.kubectl(&["get", "widget", "none"])
        .await
        .failed_with("Error from server (NotFound): widgets.test.dev \"none\" not found");
    f.kubectl(&["get", "gadgets"])
        .await
        .failed_with("the server doesn't have a resource type \"gadgets\"");
    for i in 0..12 {
        f.post(WIDGETS, &widget(&format!("w{i}"))).await;
    }
    assert_eq!(
        f.kubectl_ok(&["get", "widgets", "--chunk-size=5", "-o", "name"])
            .await
            .lines()
            .count(),
        13
    );
}

#[tokio::test]
async fn describe_explain_and_discovery() {
    let f = with_widget().await;
    f.post("/apis/events.k8s.io/v1/namespaces/default/events", &json!({
        "metadata": {"name": "e1"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "Painted", "action": "Paint",
        "type": "Normal", "note": "painted green", "reportingController": "test.dev/painter", "reportingInstance": "p-0",
        "regarding": {"apiVersion": "test.dev/v1", "kind": "Widget", "name": "web", "namespace": "default",
            "uid": f.get(&format!("{WIDGETS}/web")).await["metadata"]["uid"]}})).await;
    let described = f.kubectl_ok(&["describe", "widget", "web"]).await;
    for text in ["Name:         web", "Color:", "Painted", "painted green"] {
        contains(&described, text);
    }
    contains(&f.kubectl_ok(&["get", "events"]).await, "painted green");
    contains(&f.kubectl_ok(&["events", "--for", "widget/web"]).await, "Painted");
    let explained = f.kubectl_ok(&["explain", "widget.spec"]).await;
    contains(&explained, "What the widget shall be.");
    contains(&explained, "color");
    contains(
        &f.kubectl_ok(&["explain", "widgets.spec.color"]).await,
        "The color of the widget.",
    );
    contains(&f.kubectl_ok(&["explain", "configmap.data"]).await, "data");
    contains(&f.kubectl_ok(&["explain", "widget", "--recursive"]).await, "replicas");
    let resources = f.kubectl_ok(&["api-resources", "--sort-by=name"]).await;
    let row = resources.lines().find(|l| l.starts_with("widgets")).unwrap();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>(),
        ["widgets", "wd", "test.dev/v1", "true", "Widget"]
    );
    contains(
        &f.kubectl_ok(&["api-resources", "--categories=testing", "-o", "wide"])
            .await,
        "deletecollection",
    );
    contains(&f.kubectl_ok(&["api-versions"]).await, "test.dev/v1");
    contains(&f.kubectl_ok(&["version"]).await, "Server Version: v1.");
    assert_eq!(f.kubectl_ok(&["get", "--raw", "/readyz"]).await, "ok");
    assert_eq!(f.kubectl_ok(&["auth", "can-i", "delete", "widgets"]).await, "yes\n");
    contains(&f.kubectl_ok(&["auth", "can-i", "--list"]).await, "*");
    contains(&f.kubectl_ok(&["auth", "whoami"]).await, "graphplane-admin");
}

#[tokio::test]
async fn create_and_edit() {
    let f = with_widget().await;
    contains(
        &f.kubectl_ok(&["create", "namespace", "team"]).await,
        "namespace/team created",
    );
    contains(
        &f.kubectl_ok(&["create", "configmap", "c", "--from-literal=a=b"]).await,
        "configmap/c created",
    );
    contains(
        &f.kubectl_ok(&["create", "secret", "generic", "s", "--from-literal=k=v"])
            .await,
        "secret/s created",
    );
    assert_eq!(
        f.kubectl_ok(&["get", "secret", "s", "-o", "jsonpath={.data.k}"]).await,
        "dg=="
    );
    contains(&f.kubectl_ok(&["describe", "secret", "s"]).await, "k:  1 bytes");
    let again = f.kubectl_with(&["create", "-f", "-"], WIDGET).await;
    again.failed_with("Error from server (AlreadyExists)");
    f.kubectl_with(&["create", "-n", "none", "-f", "-"], WIDGET)
        .await
        .failed_with("namespaces \"none\" not found");
    f.kubectl_with(&["replace", "-f", "-"], &WIDGET.replace("size: 4", "size: 5"))
        .await
        .ok();

    f.kubectl_ok(&["patch", "widget", "web", "--type=merge", "-p", r#"{"spec":{"size":6}}"#])
        .await;
    f.kubectl_ok(&[
        "patch",
        "widget",
        "web",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/spec/size","value":7}]"#,
    ])
    .await;
    f.kubectl(&["patch", "widget", "web", "-p", r#"{"spec":{"size":8}}"#])
        .await
        .failed_with("accepted media types include: application/json-patch+json");
    contains(
        &f.kubectl_ok(&["patch", "cm", "c", "-p", r#"{"data":{"x":"y"}}"#]).await,
        "configmap/c patched",
    );
    f.kubectl_ok(&[
        "patch",
        "widget",
        "web",
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"replicas":1}}"#,
    ])
    .await;
    let smaller = f
        .kubectl(&["patch", "widget", "web", "--type=merge", "-p", r#"{"spec":{"size":1}}"#])
        .await;
    smaller.failed_with("size may only grow");
    f.kubectl_ok(&["label", "widget", "web", "tier=front", "app-"]).await;
    f.kubectl_ok(&["annotate", "widget", "web", "note=hello", "--overwrite"])
        .await;
    let object = f.get(&format!("{WIDGETS}/web")).await;
    assert_eq!(
        (&object["spec"]["size"], &object["status"]["replicas"]),
        (&json!(7), &json!(1))
    );
    assert_eq!(object["metadata"]["labels"], json!({"tier": "front"}));
    assert_eq!(object["metadata"]["annotations"]["note"], "hello");
    f.kubectl_ok(&["scale", "widget", "web", "--replicas=3", "--current-replicas=1"])
        .await;
    assert_eq!(f.get(&format!("{WIDGETS}/web")).await["spec"]["replicas"], 3);
    // `edit` with an editor that changes one line.
    let editor = f.dir.path().join("editor");
    std::fs::write(&editor, "sed -i 's/replicas: 3/replicas: 5/' \"$1\"\n").unwrap();
    let command = f.kubectl_command(&["edit", "widget", "web"]);
    let edited = tokio::process::Command::new(common::kubectl_program())
        .args(command)
        // Read, not executed: a process that another test starts at this moment may still have it open for writing.
        .env("KUBE_EDITOR", format!("sh {}", editor.display()))
        .env("HOME", f.dir.path())
        .output()
        .await
        .unwrap();
    assert!(edited.status.success(), "{}", String::from_utf8_lossy(&edited.stderr));
    assert_eq!(f.get(&format!("{WIDGETS}/web")).await["spec"]["replicas"], 5);
}

#[tokio::test]
async fn diff_and_dry_run() {
    let f = with_widget().await;
    assert_eq!(f.kubectl_with(&["diff", "-f", "-"], WIDGET).await.code, 0);
    for side in ["--server-side=false", "--server-side=true"] {
        let more = if side.ends_with("true") {
            "--force-conflicts"
        } else {
            "--force-conflicts=false"
        };
        let diff = f
            .kubectl_with(&["diff", side, more, "-f", "-"], &WIDGET.replace("size: 4", "size: 9"))
            .await;
        assert_eq!(diff.code, 1, "{diff:?}");
        contains(&diff.out, "-  size: 4");
        contains(&diff.out, "+  size: 9");
    }
    f.kubectl_ok(&["delete", "widget", "web", "--dry-run=server"]).await;
    f.kubectl_ok(&["label", "widget", "web", "a=b", "--dry-run=server"])
        .await;
    let object = f.get(&format!("{WIDGETS}/web")).await;
    assert_eq!(
        (&object["spec"]["size"], &object["metadata"]["labels"]),
        (&json!(4), &json!({"app": "web"}))
    );
}

#[tokio::test]
async fn delete_and_wait() {
    let f = with_widget().await;
    f.kubectl_ok(&[
        "patch",
        "widget",
        "web",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":["test.dev/hold"]}}"#,
    ])
    .await;
    f.kubectl_ok(&["delete", "widget", "web", "--wait=false"]).await;
    let short = f.kubectl(&["wait", "--for=delete", "widget/web", "--timeout=1s"]).await;
    short.failed_with("timed out waiting");
    let waiting = f.kubectl_command(&["wait", "--for=delete", "widget/web", "--timeout=200s"]);
    let home = f.dir.path().to_path_buf();
    let waiting = tokio::spawn(async move { common::kubectl(&waiting, &home, "").await });
    f.kubectl_ok(&[
        "patch",
        "widget",
        "web",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ])
    .await;
    waiting.await.unwrap().ok();

    f.post(WIDGETS, &widget("a")).await;
    let waiting = f.kubectl_command(&["wait", "--for=condition=Ready", "widget/a", "--timeout=200s"]);
    let home = f.dir.path().to_path_buf();
    let waiting = tokio::spawn(async move { common::kubectl(&waiting, &home, "").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    f.call(Method::PATCH, &format!("{WIDGETS}/a/status"), Some(&status))
        .await;
    contains(&waiting.await.unwrap().ok(), "widget.test.dev/a condition met");
    f.kubectl_ok(&[
        "wait",
        "--for=jsonpath={.spec.color}=green",
        "widget/a",
        "--timeout=200s",
    ])
    .await;

    for propagation in ["background", "foreground", "orphan"] {
        let owner = f.post(WIDGETS, &widget("owner")).await;
        f.post(
            "/api/v1/namespaces/default/configmaps",
            &json!({"metadata": {"name": propagation, "ownerReferences": [
            {"apiVersion": "test.dev/v1", "kind": "Widget", "name": "owner", "uid": owner["metadata"]["uid"],
                "blockOwnerDeletion": true}]}}),
        )
        .await;
        f.kubectl_ok(&["delete", "widget", "owner", &format!("--cascade={propagation}")])
            .await;
        f.gone(&format!("{WIDGETS}/owner")).await;
        let path = format!("/api/v1/namespaces/default/configmaps/{propagation}");
        if propagation == "orphan" {
            assert!(f.get(&path).await["metadata"].get("ownerReferences").is_none());
        } else {
            f.gone(&path).await;
        }
    }
    f.kubectl_ok(&["delete", "widgets", "--all"]).await;
    f.kubectl_ok(&["create", "ns", "team"]).await;
    f.kubectl_ok(&["create", "cm", "c", "-n", "team"]).await;
    f.kubectl_ok(&["delete", "ns", "team"]).await;
    f.kubectl(&["get", "ns", "team"]).await.failed_with("NotFound");
    f.kubectl_ok(&["delete", "crd", "widgets.test.dev"]).await;
    assert!(!f.kubectl_ok(&["api-resources"]).await.contains("widgets"));
    f.kubectl(&["get", "widgets"])
        .await
        .failed_with("doesn't have a resource type");
}

#[tokio::test]
async fn watch_prints_what_changes() {
    let mut f = with_widget().await;
    let mut child = tokio::process::Command::new(common::kubectl_program())
        .args(f.kubectl_command(&["get", "widgets", "-w"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = async || {
        tokio::time::timeout(PATIENCE, lines.next_line())
            .await
            .unwrap()
            .unwrap()
    };
    contains(&line().await.unwrap(), "NAME");
    contains(&line().await.unwrap(), "web");
    f.call(
        Method::PATCH,
        &format!("{WIDGETS}/web"),
        Some(&json!({"spec": {"color": "red"}})),
    )
    .await;
    contains(&line().await.unwrap(), "red");
    f.post(WIDGETS, &widget("second")).await;
    contains(&line().await.unwrap(), "second");
    // The server goes: the watch ends at once, not after its timeout.
    tokio::time::timeout(PATIENCE, f.stop_serving()).await.unwrap();
    assert_eq!(line().await, None);
}

#[tokio::test]
async fn strangers_are_kept_out() {
    let f = Fixture::served().await;
    let ca = f.dir.path().join("ca.pem");
    std::fs::write(&ca, f.server.ca_pem()).unwrap();
    let (server, ca) = (
        format!("--server={}", f.url()),
        format!("--certificate-authority={}", ca.display()),
    );
    let run = async |args: &[&str]| {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        common::kubectl(&args, f.dir.path(), "").await
    };
    let token = format!("--token={}", f.server.token());
    run(&["get", "ns", &server, &ca, &token]).await.ok();
    run(&["get", "ns", &server, &ca, "--token=wrong"])
        .await
        .failed_with("Unauthorized");
    run(&["get", "ns", &server, &ca, &token, "--as=bob"])
        .await
        .failed_with("does not impersonate");
    run(&["get", "ns", &server, &token]).await.failed_with("certificate");
    assert_eq!(
        run(&["get", "--raw", "/healthz", &server, &ca, "--token=wrong"])
            .await
            .ok(),
        "ok"
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(f.kubeconfig()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}
