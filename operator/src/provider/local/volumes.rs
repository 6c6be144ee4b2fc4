//! Volumes as directories.

use super::layout::{Layout, io_error, make_dir, read, remove_tree, write};
use crate::provider::{Attachment, DiskFacts, ProviderError, VolumeRequest};
use graphplane_crds::quantities::GiB;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Content of `.volume.json`.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
struct Marker {
    #[serde(rename = "sizeGiB")]
    size_gib: GiB,
    client_token: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

const MARKER: &str = ".volume.json";
/// Beginning of the name under which a directory is removed: a removal that was interrupted is never taken for a volume.
const REMOVED: &str = ".removed-";
/// Files of an engine. Each holds data of a tenant.
const DATA: [&str; 4] = ["lbug", "duckdb", "lance", "wal"];

fn facts(name: &str, dir: &Path) -> Result<DiskFacts, ProviderError> {
    let marker: Option<Marker> = read(&dir.join(MARKER))?;
    let databases = databases(dir)?;
    Ok(DiskFacts {
        id: format!("local:///{name}"),
        size_gib: marker.map(|m| m.size_gib),
        databases: Some(databases),
        performance: None,
        attachment: Attachment::NotNeeded,
        modification: None,
        made_for: None,
    })
}

/// Makes the directory, or notes its new size.
pub(super) fn ensure(layout: &Layout, want: &VolumeRequest) -> Result<DiskFacts, ProviderError> {
    let dir = layout.volume(&want.name)?;
    make_dir(&dir)?;
    let path = dir.join(MARKER);
    let before: Option<Marker> = read(&path)?;
    if before.as_ref().is_none_or(|m| m.size_gib < want.size_gib) {
        let client_token = before.map_or_else(|| want.client_token.clone(), |m| m.client_token);
        write(
            &path,
            &Marker {
                size_gib: want.size_gib,
                client_token,
                tags: want.tags.clone(),
            },
        )?;
    }
    facts(&want.name, &dir)
}

/// Every volume.
pub(super) fn list(layout: &Layout) -> Result<BTreeMap<String, DiskFacts>, ProviderError> {
    let mut disks = BTreeMap::new();
    for name in Layout::names(&layout.volumes())? {
        let dir = layout.volume(&name)?;
        // A directory without a marker is one whose making was interrupted: it is made again.
        if dir.join(MARKER).exists() {
            disks.insert(name.clone(), facts(&name, &dir)?);
        }
    }
    Ok(disks)
}

/// Names of the databases in a directory.
fn databases(dir: &Path) -> Result<Vec<String>, ProviderError> {
    let mut found: Vec<String> = data_files(dir)?
        .iter()
        .filter_map(|file| file.split('.').next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Files with data, in the directory and the directories in it.
fn data_files(dir: &Path) -> Result<Vec<String>, ProviderError> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).map_err(io_error("list", &dir))? {
            let entry = entry.map_err(io_error("list", &dir))?;
            let path = entry.path();
            let is_data = path
                .extension()
                .and_then(|e| e.to_str())
                .is_some_and(|e| DATA.contains(&e));
            if is_data {
                found.push(entry.file_name().to_string_lossy().into_owned());
            } else if entry.file_type().is_ok_and(|t| t.is_dir()) && entry.file_name() != "tmp" {
                // `tmp` holds copies that the agent removes at its start.
                open.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Destroys the directory, unless data is in it.
pub(super) fn delete(layout: &Layout, name: &str) -> Result<(), ProviderError> {
    let dir = layout.volume(name)?;
    if !dir.is_dir() {
        return Ok(());
    }
    let files = data_files(&dir)?;
    if !files.is_empty() {
        return Err(ProviderError::NotEmpty {
            volume: name.to_owned(),
            files,
        });
    }
    let removed = layout.volumes().join(format!("{REMOVED}{name}"));
    remove_tree(&removed)?;
    fs::rename(&dir, &removed).map_err(io_error("remove", &dir))?;
    remove_tree(&removed)
}

/// Completes removals that were interrupted.
pub(super) fn remove_leftovers(layout: &Layout) -> Result<(), ProviderError> {
    let dir = layout.volumes();
    for entry in fs::read_dir(&dir).map_err(io_error("list", &dir))? {
        let entry = entry.map_err(io_error("list", &dir))?;
        if entry.file_name().to_string_lossy().starts_with(REMOVED) {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::provider::Performance;

    fn request(size: u32) -> VolumeRequest {
        VolumeRequest {
            name: "std-0".into(),
            zone: "local".into(),
            size_gib: GiB(size),
            performance: Performance::default(),
            snapshot: None,
            client_token: "t".into(),
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn a_directory_is_made_once_and_only_grows() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        assert!(list(&layout).unwrap().is_empty());
        assert_eq!(ensure(&layout, &request(5)).unwrap().size_gib, Some(GiB(5)));
        assert_eq!(ensure(&layout, &request(9)).unwrap().size_gib, Some(GiB(9)));
        assert_eq!(ensure(&layout, &request(5)).unwrap().size_gib, Some(GiB(9)));
        assert_eq!(list(&layout).unwrap().len(), 1);
        // A crash between the directory and its marker.
        fs::create_dir(layout.volume("std-1").unwrap()).unwrap();
        assert_eq!(list(&layout).unwrap().len(), 1);
    }

    #[test]
    fn data_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        ensure(&layout, &request(5)).unwrap();
        let volume = layout.volume("std-0").unwrap();
        fs::write(volume.join("agent.address"), "x").unwrap();
        fs::create_dir_all(volume.join("tasks")).unwrap();
        fs::create_dir_all(volume.join("vectors/kg01.lance")).unwrap();
        fs::write(volume.join("kg01.lbug"), "data").unwrap();
        fs::write(volume.join("kg02.lbug.wal"), "data").unwrap();
        assert_eq!(
            list(&layout).unwrap()["std-0"].databases,
            Some(vec!["kg01".into(), "kg02".into()])
        );
        let refused = delete(&layout, "std-0").unwrap_err();
        assert!(refused.to_string().contains("kg01.lbug"), "{refused}");
        fs::remove_file(volume.join("kg01.lbug")).unwrap();
        fs::remove_file(volume.join("kg02.lbug.wal")).unwrap();
        assert!(
            matches!(delete(&layout, "std-0"), Err(ProviderError::NotEmpty { .. })),
            "a vector index is data"
        );
        fs::remove_dir(volume.join("vectors/kg01.lance")).unwrap();
        delete(&layout, "std-0").unwrap();
        assert!(!volume.exists());
        delete(&layout, "std-0").unwrap();
    }

    #[test]
    fn an_interrupted_removal_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        let half = layout.volumes().join(".removed-std-0");
        fs::create_dir_all(half.join("tasks")).unwrap();
        assert!(list(&layout).unwrap().is_empty());
        remove_leftovers(&layout).unwrap();
        assert!(!half.exists());
    }
}
