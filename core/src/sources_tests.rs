#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn rules(places: &[&str]) -> SourceRules {
    SourceRules {
        places: places.iter().map(|place| place.parse().unwrap()).collect(),
        endpoints: Vec::new(),
    }
}

fn at(text: &str) -> Location {
    let (bucket, path) = text.split_once('/').unwrap_or((text, ""));
    Location::new(bucket, path).unwrap()
}

#[test]
fn a_place_holds_what_is_below_it() {
    let rules = rules(&["s3://lake/in/{graph}", "s3://open/", "s3://own-{graph}/x/one.parquet"]);
    for (asked, good) in [
        ("lake/in/kg1", true),
        ("lake/in/kg1/x.parquet", true),
        ("lake/in/kg1/deep/x.parquet", true),
        ("lake/in/kg11/x.parquet", false),
        ("lake/in/kg2/x.parquet", false),
        ("lake/in", false),
        ("lake/in/{graph}/x.parquet", false),
        ("lake", false),
        ("Lake/in/kg1/x.parquet", false),
        ("lake-2/in/kg1/x.parquet", false),
        ("open", true),
        ("open/any/thing", true),
        ("own-kg1/x/one.parquet", true),
        ("own-kg1/x/two.parquet", false),
        ("own-kg2/x/one.parquet", false),
    ] {
        assert_eq!(rules.may_read("kg1", &at(asked), None), good, "{asked}");
    }
    assert!(!SourceRules::default().may_read("kg1", &at("lake"), None));
}

#[test]
fn what_the_platform_keeps_is_opened_by_name_only() {
    let kept = at("platform/backups");
    let may = |place: &str, asked: &str| rules(&[place]).may_read("kg1", &at(asked), Some(&kept));
    for (place, asked, good) in [
        ("s3://platform", "platform/lake/x", true),
        ("s3://platform", "platform", true),
        ("s3://platform", "platform/backups", false),
        ("s3://platform", "platform/backups/kg2/graph.lbug.zst", false),
        ("s3://platform/backups", "platform/backups/seeds/kg2/1", false),
        ("s3://platform/backups/open", "platform/backups/open/x", true),
        ("s3://platform/backups/open", "platform/backups/kg2", false),
        ("s3://platform/backups2", "platform/backups2/x", true),
    ] {
        assert_eq!(may(place, asked), good, "{place} {asked}");
    }
    // A store that is a whole bucket.
    let bucket = at("platform");
    assert!(!rules(&["s3://platform"]).may_read("kg1", &at("platform/x"), Some(&bucket)));
    assert!(rules(&["s3://platform/in"]).may_read("kg1", &at("platform/in/x"), Some(&bucket)));
    assert!(rules(&["s3://other"]).may_read("kg1", &at("other/x"), Some(&bucket)));
}

#[test]
fn rules_are_written_plainly() {
    for place in [
        "s3://b",
        "s3://b/",
        "s3://b/a/{graph}/",
        "s3://b/a={graph}",
        "s3://b-{graph}",
    ] {
        let parsed: SourcePlace = place.parse().unwrap();
        assert_eq!(parsed.to_string(), place.trim_end_matches('/'));
    }
    for bad in [
        "",
        "b/a",
        "s3://",
        "s3:///a",
        "s3://b//a",
        "s3://b/a/../c",
        "s3://b/./a",
        "s3://b/*",
        "s3://b/a?",
        "s3://b/{id}",
        "s3://b/{graph",
        "file:///a",
        "s3://b/a\n",
    ] {
        let error = bad.parse::<SourcePlace>().unwrap_err().to_string();
        assert!(error.contains("expected s3://"), "{error}");
    }
    for (text, origin) in [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("https://MinIO.internal:443/", "https://minio.internal"),
        ("http://[::1]:80", "http://[::1]"),
    ] {
        assert_eq!(text.parse::<SourceEndpoint>().unwrap().origin(), origin);
    }
    for bad in [
        "",
        "minio:9000",
        "https://",
        "ftp://x",
        "https://u@x",
        "https://x/path",
        "https://x?y",
        "https://x y",
    ] {
        assert!(bad.parse::<SourceEndpoint>().is_err(), "{bad}");
    }
}

#[test]
fn rules_stand_beside_other_fields_of_a_configuration() {
    let text = r#"{"sources":["s3://lake/{graph}"],"sourceEndpoints":["https://minio.internal"]}"#;
    let rules: SourceRules = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&rules).unwrap(), text);
    assert_eq!(serde_json::to_string(&SourceRules::default()).unwrap(), "{}");
    assert_eq!(SourceRules::default().and(&rules), rules);
    let error = serde_json::from_str::<SourceRules>(r#"{"sources":["lake"]}"#).unwrap_err();
    assert!(error.to_string().contains("expected s3://bucket/folder"), "{error}");
}

const SEGMENT: &str = "[a-z.]{1,3}";

proptest! {
    /// What may be read lies below the text of a place, at the end of a segment, whatever both look like.
    #[test]
    fn nothing_outside_of_a_place_is_read(
        place in "[ab/.]{0,8}", asked in "[ab/.]{0,12}", bucket in "[ab]{1,2}", other in "[ab]{1,2}",
    ) {
        let Ok(rule) = format!("s3://{bucket}/{place}").parse::<SourcePlace>() else { return Ok(()) };
        let Some(location) = Location::new(&other, &asked) else { return Ok(()) };
        let rules = SourceRules { places: vec![rule], endpoints: Vec::new() };
        if rules.may_read("kg1", &location, None) {
            let root = format!("{bucket}/{}", place.trim_end_matches('/'));
            let root = root.trim_end_matches('/');
            let full = format!("{other}/{asked}");
            prop_assert!(full.trim_end_matches('/') == root || full.starts_with(&format!("{root}/")), "{full} {root}");
            prop_assert!(!full.split('/').any(|segment| segment == ".." || segment == "."));
        }
    }

    /// Two graphs never share a place that has the placeholder.
    #[test]
    fn graphs_have_places_of_their_own(
        before in prop::collection::vec(SEGMENT, 0..3), around in ("[a-z=]{0,3}", "[a-z=]{0,3}"),
        one in "kg[0-9a-f]{16,20}", two in "kg[0-9a-f]{16,20}", rest in prop::collection::vec(SEGMENT, 0..3),
    ) {
        prop_assume!(one != two);
        let path: Vec<String> = before.iter().cloned().chain([format!("{}{GRAPH}{}", around.0, around.1)]).collect();
        let Ok(place) = format!("s3://lake/{}", path.join("/")).parse::<SourcePlace>() else { return Ok(()) };
        let (mine, theirs) = (place.of(&one), place.of(&two));
        prop_assert!(!mine.holds(&theirs) && !theirs.holds(&mine));
        let key = format!("{theirs}/{}", rest.join("/"));
        let key = key.trim_start_matches("s3://lake/").trim_end_matches('/');
        if let Some(asked) = Location::new("lake", key) {
            let rules = SourceRules { places: vec![place], endpoints: Vec::new() };
            prop_assert!(!rules.may_read(&one, &asked, None));
            prop_assert!(rules.may_read(&two, &asked, None));
        }
    }

    /// What the platform keeps stays closed to every place that was not put into it.
    #[test]
    fn kept_objects_stay_closed(
        kept in prop::collection::vec("[ab]", 0..3), place in prop::collection::vec("[ab]", 0..5), below in prop::collection::vec("[ab]", 0..3),
    ) {
        let root = Location::new("b", &kept.join("/")).unwrap();
        let path: Vec<String> = kept.iter().chain(&below).cloned().collect();
        let asked = Location::new("b", &path.join("/")).unwrap();
        let rules = SourceRules {
            places: vec![format!("s3://b/{}", place.join("/")).parse().unwrap()],
            endpoints: Vec::new(),
        };
        let inside = place.len() > kept.len() && place.starts_with(&kept);
        prop_assert_eq!(
            rules.may_read("kg1", &asked, Some(&root)),
            inside && path.starts_with(&place)
        );
    }
}
