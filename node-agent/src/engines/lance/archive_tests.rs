#![allow(clippy::unwrap_used)]
use super::*;

fn packed(entries: &[(EntryType, &str, &[u8])]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut tar = Builder::new(GzEncoder::new(file.reopen().unwrap(), Compression::fast()));
    for (kind, name, content) in entries {
        let mut header = header(content.len() as u64);
        header.set_entry_type(*kind);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if *kind == EntryType::Symlink || *kind == EntryType::Link {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    file
}

fn unpacked(entries: &[(EntryType, &str, &[u8])], max_bytes: u64) -> Result<Manifest, String> {
    let archive = packed(entries);
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("inside");
    let unpacked = unpack(archive.path(), &target, max_bytes, || false);
    // Whatever was in it, nothing is beside the target.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    unpacked.map_err(|error| error.to_string())
}

fn manifest() -> Vec<u8> {
    let (format, rows, record) = (FORMAT, 1, Record::new(2));
    serde_json::to_vec(&Manifest { format, rows, record }).unwrap()
}

#[test]
fn plain_files_are_unpacked() {
    let manifest = manifest();
    let read = unpacked(
        &[
            (EntryType::Regular, "manifest.json", &manifest),
            (EntryType::Directory, "data/_versions", b""),
            (EntryType::Regular, "data/_versions/1.manifest", b"x"),
        ],
        1 << 20,
    );
    assert_eq!(read.unwrap().rows, 1);
}

#[test]
fn everything_else_is_refused() {
    let manifest = manifest();
    let first = (EntryType::Regular, "manifest.json", manifest.as_slice());
    for (entry, named) in [
        ((EntryType::Symlink, "data/link", &b""[..]), "no plain file"),
        ((EntryType::Link, "data/link", b""), "no plain file"),
        ((EntryType::Char, "data/device", b""), "no plain file"),
        ((EntryType::Fifo, "data/pipe", b""), "no plain file"),
        ((EntryType::GNULongName, "data/long", b"x"), "no plain file"),
        ((EntryType::XHeader, "data/pax", b"x"), "no plain file"),
        ((EntryType::GNUSparse, "data/sparse", b"x"), "no plain file"),
        ((EntryType::Regular, "data/../../../out", b"x"), "not expected"),
        ((EntryType::Regular, "/etc/cron.d/out", b"x"), "not expected"),
        ((EntryType::Regular, "../out", b"x"), "not expected"),
        ((EntryType::Regular, "other/out", b"x"), "not expected"),
        ((EntryType::Regular, "data/.hidden", b"x"), "not expected"),
        ((EntryType::Regular, "data/a b", b"x"), "not expected"),
        ((EntryType::Regular, "data/1/2/3/4/5", b"x"), "not expected"),
        ((EntryType::Regular, "data", b"x"), "not expected"),
        ((EntryType::Regular, "manifest.json", b"{}"), "not expected"),
    ] {
        let error = unpacked(&[first, entry], 1 << 20).unwrap_err();
        assert!(error.contains(named), "{}: {error}", entry.1);
    }
    let twice = (EntryType::Regular, "data/a", &b"x"[..]);
    assert!(
        unpacked(&[first, twice, twice], 1 << 20)
            .unwrap_err()
            .contains("two entries")
    );
    assert!(unpacked(&[twice], 1 << 20).unwrap_err().contains("no manifest"));
    let large = (EntryType::Regular, "data/a", &[0; 4096][..]);
    assert!(unpacked(&[first, large], 4096).unwrap_err().contains("room"));
    let wrong = (EntryType::Regular, "manifest.json", &b"{\"format\":1}"[..]);
    assert!(unpacked(&[wrong], 1 << 20).unwrap_err().contains("manifest"));
}

#[test]
fn what_is_no_archive_or_is_cut_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("archive");
    fs::write(&path, b"not gzip at all").unwrap();
    assert!(unpack(&path, &directory.path().join("a"), 1 << 20, || false).is_err());
    let manifest = manifest();
    let noise: Vec<u8> = (0..100_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let whole = packed(&[
        (EntryType::Regular, "manifest.json", &manifest),
        (EntryType::Regular, "data/a", &noise),
    ]);
    let bytes = fs::read(whole.path()).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(unpack(&path, &directory.path().join("b"), 1 << 20, || false).is_err());
}

#[test]
fn packing_a_large_file_stops_within_it() {
    let root = tempfile::tempdir().unwrap();
    let table = root.path().join("table");
    fs::create_dir_all(table.join("data")).unwrap();
    fs::write(table.join("data/a.lance"), vec![7; 1 << 20]).unwrap();
    let manifest: Manifest = serde_json::from_slice(&manifest()).unwrap();
    pack(&manifest, &table, &root.path().join("whole"), &|| false).unwrap();
    // There are three files and directories, and many more pieces of the file.
    let asked = std::cell::Cell::new(0);
    let stopped = || {
        asked.set(asked.get() + 1);
        asked.get() > 10
    };
    pack(&manifest, &table, &root.path().join("half"), &stopped).unwrap_err();
    assert_eq!(asked.get(), 11);
}
