#![allow(clippy::unwrap_used)]
use super::*;

const BOUNDS: Bounds = Bounds {
    files: 3,
    bytes: Some(100),
};

fn id(text: &str) -> DatabaseId {
    text.parse().unwrap()
}

fn sources(places: &[&str], import_dir: Option<&Path>) -> Sources {
    let rules = SourceRules {
        places: places.iter().map(|place| place.parse().unwrap()).collect(),
        endpoints: Vec::new(),
    };
    Sources::new(rules, import_dir, Path::new("/absent")).unwrap()
}

async fn admitted(sources: &Sources, graph: &str, address: &str) -> Result<Admitted, SourceError> {
    let reach = sources.reach(&id(graph), None, None).await?;
    reach.admit("s3_pattern", &[address.to_owned()])
}

async fn found(sources: &Sources, address: String) -> Result<Vec<SourceFile>, SourceError> {
    admitted(sources, "kg1", &address).await?.resolve(BOUNDS).await
}

#[tokio::test]
async fn local_files_are_read_below_the_import_directory_only() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let import = root.join("import");
    std::fs::create_dir_all(import.join("deep")).unwrap();
    for name in ["a.parquet", "b.parquet", "deep/c.parquet"] {
        std::fs::write(import.join(name), name).unwrap();
    }
    std::fs::write(root.join("secret.parquet"), "secret").unwrap();
    std::os::unix::fs::symlink(root.join("secret.parquet"), import.join("link.parquet")).unwrap();
    let sources = sources(&[], Some(&import));
    let resolve = |address: String| found(&sources, address);
    let at = |path: &str| format!("file://{}/{path}", import.display());

    let files = resolve(at("*.parquet")).await.unwrap();
    let names: Vec<&str> = files.iter().map(|file| file.uri.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["a.parquet", "b.parquet"]);
    let target = root.join("copy");
    assert_eq!(files[0].fetch(&target, None, 0).await.unwrap(), 9);
    assert_eq!(std::fs::read(&target).unwrap(), b"a.parquet");
    assert_eq!(resolve(at("**/*.parquet")).await.unwrap().len(), 3);
    let absent = resolve(at("nothing.parquet")).await;
    assert!(matches!(absent, Err(SourceError::NotFound(_))));
    for hostile in [
        format!("file://{}/secret.parquet", root.display()),
        at("link.parquet"),
        "file:///etc/hostname".into(),
    ] {
        let refused = resolve(hostile.clone()).await;
        assert!(matches!(refused, Err(SourceError::Forbidden(_))), "{hostile}");
    }
    for nonsense in [at("../secret.parquet"), "file://relative".into()] {
        let refused = resolve(nonsense.clone()).await;
        assert!(matches!(refused, Err(SourceError::Invalid(_))), "{nonsense}");
    }
    std::fs::write(import.join("big.parquet"), vec![0; 101]).unwrap();
    assert!(matches!(
        resolve(at("big.parquet")).await,
        Err(SourceError::TooLarge(_))
    ));
    std::fs::write(import.join("d.parquet"), "d").unwrap();
    assert!(matches!(
        resolve(at("**/*.parquet")).await,
        Err(SourceError::TooLarge(_))
    ));
}

#[tokio::test]
async fn a_local_file_that_grew_is_not_copied_beyond_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let import = dir.path().canonicalize().unwrap();
    let grown = import.join("grown.csv");
    std::fs::write(&grown, "a\n1\n").unwrap();
    let sources = sources(&[], Some(&import));
    let files = found(&sources, format!("file://{}", grown.display())).await.unwrap();
    std::fs::write(&grown, vec![b'1'; 1 << 20]).unwrap();
    let target = import.join("copy");
    let refused = files[0].fetch(&target, Some(100), 0).await;
    assert!(matches!(refused, Err(SourceError::TooLarge(_))), "{refused:?}");
    assert!(std::fs::metadata(&target).unwrap().len() <= 101);

    // Nor is anything copied to a volume that is full.
    std::fs::remove_file(&target).unwrap();
    let refused = files[0].fetch(&target, None, u64::MAX).await;
    assert!(matches!(refused, Err(SourceError::Full(_))), "{refused:?}");
    assert_eq!(std::fs::metadata(&target).unwrap().len(), 0);
}

#[tokio::test]
async fn without_rules_nothing_of_the_nodes_is_read() {
    let sources = Sources::default();
    for (address, advice) in [
        ("file:///etc/hostname", "--import-dir"),
        ("s3://lake/x", "s3_credentials"),
    ] {
        let error = admitted(&sources, "kg1", address).await.unwrap_err();
        assert!(matches!(error, SourceError::Forbidden(_)), "{error}");
        let error = error.to_string();
        assert!(
            error.starts_with(&format!("s3_pattern: {address}: ")) && error.contains(advice),
            "{error}"
        );
    }
    for nonsense in [
        "/etc/hostname",
        "http://x/y",
        "s3://",
        "s3://b",
        "s3://b?x/y",
        "s3://../y",
        "s3:///y",
        "S3://b/y",
        "",
    ] {
        let error = admitted(&sources, "kg1", nonsense).await.unwrap_err();
        assert!(matches!(error, SourceError::Invalid(_)), "{nonsense}: {error}");
    }
}

#[tokio::test]
async fn the_nodes_credentials_are_for_places_of_the_rules() {
    let sources = sources(&["s3://lake/in/{graph}"], None);
    let own = "kg0123456789abcdef";
    let check = |graph: &'static str, address: &'static str| {
        let sources = &sources;
        async move { admitted(sources, graph, address).await.map(drop) }
    };
    for (graph, address) in [
        (own, "s3://lake/in/kg0123456789abcdef/x.parquet"),
        (own, "s3://lake//in/kg0123456789abcdef/x.parquet"),
        (own, "s3://lake/in/kg0123456789abcdef/*.parquet"),
        (own, "s3://lake/in/kg0123456789abcdef/**"),
        ("kg0123456789abcdef_dev", "s3://lake/in/kg0123456789abcdef/x.parquet"),
        ("kg0123456789abcdef-wip", "s3://lake/in/kg0123456789abcdef/x.parquet"),
        (
            "kg0123456789abcdef_dev-wip",
            "s3://lake/in/kg0123456789abcdef/x.parquet",
        ),
        ("My_Own", "s3://lake/in/My_Own/x.parquet"),
    ] {
        check(graph, address).await.unwrap();
    }
    for address in [
        "s3://lake/in/kg0123456789abcdee/x.parquet",
        "s3://lake/in/kg0123456789abcdef0/x.parquet",
        "s3://lake/in/kg0123456789abcdef*/x.parquet",
        "s3://lake/in/*/x.parquet",
        "s3://lake/in/[k]g0123456789abcdef/x.parquet",
        "s3://lake/**",
        "s3://lake/x",
        "s3://lake/in/kg0123456789abcdef%2F../x.parquet",
        "s3://lake/in%2Fkg0123456789abcdef/x.parquet",
        "s3://lake/in/{graph}/x.parquet",
        "s3://LAKE/in/kg0123456789abcdef/x.parquet",
        "s3://lake-s3alias/in/kg0123456789abcdef/x.parquet",
    ] {
        let error = check(own, address).await.unwrap_err();
        assert!(matches!(error, SourceError::Forbidden(_)), "{address}: {error}");
        assert!(
            error.to_string().contains("s3://lake/in/kg0123456789abcdef only"),
            "{error}"
        );
    }
    for address in [
        "s3://lake/in/kg0123456789abcdef/../x",
        "s3://lake/in/kg0123456789abcdef/./x",
        "s3://lake/in//x",
    ] {
        let error = check(own, address).await.unwrap_err();
        assert!(matches!(error, SourceError::Invalid(_)), "{address}: {error}");
    }
}

#[tokio::test]
async fn rules_of_the_control_plane_take_the_place_of_older_ones() {
    let sources = sources(&["s3://own"], None);
    let may = |address: &'static str| {
        let sources = &sources;
        async move { admitted(sources, "kg1", address).await.is_ok() }
    };
    let rules = |place: &str| SourceRules {
        places: vec![place.parse().unwrap()],
        endpoints: Vec::new(),
    };
    assert!(may("s3://own/x").await && !may("s3://first/x").await);
    sources.follow(&rules("s3://first"));
    assert!(may("s3://own/x").await && may("s3://first/x").await);
    sources.follow(&rules("s3://second"));
    assert!(may("s3://own/x").await && !may("s3://first/x").await && may("s3://second/x").await);
}

#[tokio::test]
async fn a_callers_credentials_reach_what_they_can() {
    let given = Credentials {
        aws_access_key_id: Some("key".into()),
        aws_secret_access_key: Some("secret".into()),
        ..Credentials::default()
    };
    let sources = Sources::default();
    let reach = sources.reach(&id("kg1"), Some(&given), None).await.unwrap();
    assert!(reach.admit("s3_pattern", &["s3://anything/**".to_owned()]).is_ok());
    let local = reach.admit("s3_pattern", &["file:///etc/hostname".to_owned()]);
    assert!(matches!(local, Err(SourceError::Forbidden(_))));
}
