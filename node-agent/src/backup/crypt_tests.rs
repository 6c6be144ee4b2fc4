#![allow(clippy::unwrap_used)]
use super::*;

fn cipher(secret: u8, context: &str) -> FileCipher {
    FileCipher {
        key: BackupKey::new([secret; 32]),
        context: context.to_owned(),
    }
}

fn sealed(plain: &[u8]) -> Vec<u8> {
    let mut sealer = Sealer::new(Vec::new(), &cipher(7, "kg1")).unwrap();
    // In pieces that do not fit the chunks.
    for piece in plain.chunks(50_021) {
        sealer.write_all(piece).unwrap();
    }
    sealer.finish().unwrap()
}

fn opened(sealed: &[u8]) -> io::Result<Vec<u8>> {
    opened_with(sealed, &cipher(7, "kg1"))
}

fn opened_with(sealed: &[u8], cipher: &FileCipher) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    Opener::new(sealed, cipher)?.read_to_end(&mut plain)?;
    Ok(plain)
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// The chunks of a sealed file, after its header.
fn chunks(sealed: &[u8]) -> Vec<Vec<u8>> {
    sealed[HEADER..].chunks(CHUNK + TAG).map(<[u8]>::to_vec).collect()
}

fn join(header: &[u8], chunks: &[Vec<u8>]) -> Vec<u8> {
    [header, &chunks.concat()].concat()
}

#[test]
fn what_was_sealed_is_opened() {
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5] {
        let plain = content(length);
        let file = sealed(&plain);
        let chunks = length.div_ceil(CHUNK).max(1);
        assert_eq!(file.len(), HEADER + length + chunks * TAG, "{length}");
        assert_eq!(opened(&file).unwrap(), plain, "{length}");
    }
    let plain = content(1000);
    let file = sealed(&plain);
    assert!(!file.windows(32).any(|window| window == &plain[..32]));
    assert_ne!(file, sealed(&plain), "two files of one content look the same");
}

#[test]
fn a_changed_byte_anywhere_is_found() {
    let file = sealed(&content(2 * CHUNK + 100));
    for at in (0..HEADER)
        .chain((HEADER..file.len()).step_by(4099))
        .chain([file.len() - 1])
    {
        let mut changed = file.clone();
        changed[at] ^= 1;
        let error = opened(&changed).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {at}: {error}");
    }
}

#[test]
fn a_cut_file_is_found() {
    let file = sealed(&content(3 * CHUNK));
    let whole_chunks = (0..3).map(|n| HEADER + n * (CHUNK + TAG));
    for length in [0, 1, HEADER - 1, HEADER + 1, HEADER + TAG, file.len() - 1]
        .into_iter()
        .chain(whole_chunks)
    {
        assert!(opened(&file[..length]).is_err(), "cut to {length}");
    }
    let longer = [file.as_slice(), &file[file.len() - CHUNK - TAG..]].concat();
    assert!(opened(&longer).is_err(), "a chunk was appended");
    assert!(
        opened(&[file.as_slice(), b"x"].concat()).is_err(),
        "a byte was appended"
    );
}

#[test]
fn moved_repeated_and_missing_chunks_are_found() {
    let file = sealed(&content(4 * CHUNK));
    let (header, whole) = (&file[..HEADER], chunks(&file));
    assert_eq!(opened(&join(header, &whole)).unwrap().len(), 4 * CHUNK);
    let mut moved = whole.clone();
    moved.swap(0, 1);
    let mut repeated = whole.clone();
    repeated[1] = whole[0].clone();
    let mut missing = whole.clone();
    missing.remove(1);
    let mut last_first = whole.clone();
    last_first.rotate_right(1);
    // Of another file with the same key.
    let mut foreign = whole.clone();
    foreign[2] = chunks(&sealed(&content(4 * CHUNK)))[2].clone();
    for (what, wrong) in [
        ("moved", moved),
        ("repeated", repeated),
        ("missing", missing),
        ("last first", last_first),
        ("foreign", foreign),
    ] {
        let error = opened(&join(header, &wrong)).unwrap_err();
        assert!(error.to_string().contains("chunk"), "{what}: {error}");
    }
}

#[test]
fn the_key_and_the_context_have_to_be_the_same() {
    let file = sealed(b"content");
    let error = opened_with(&file, &cipher(8, "kg1")).unwrap_err().to_string();
    assert!(error.contains(&BackupKey::new([7; 32]).id()), "{error}");
    assert!(opened_with(&file, &cipher(7, "kg2")).is_err());
}

#[test]
fn keys_are_read_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let (new, old) = (STANDARD.encode([1; 32]), STANDARD.encode([2; 32]));
    std::fs::write(&path, format!("# keys\n{new}\n\n  {old}  \n")).unwrap();
    let keys = Keyring::read(&path).unwrap();
    assert_eq!(keys.current().id(), BackupKey::new([1; 32]).id());
    assert!(keys.find(&BackupKey::new([2; 32]).id()).is_some());
    assert!(keys.find("0000000000000000").is_none());
    let shown = format!("{keys:?}");
    assert!(!shown.contains(&new) && !shown.contains("1, 1, 1"), "{shown}");

    for wrong in ["hush-hush", &STANDARD.encode([1; 31]), &hex::encode([1; 32])] {
        std::fs::write(&path, format!("{new}\n{wrong}")).unwrap();
        let error = Keyring::read(&path).unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains(wrong), "{error}");
    }
    std::fs::write(&path, "# none\n").unwrap();
    assert!(matches!(Keyring::read(&path), Err(KeyError::Empty { .. })));
    assert!(matches!(
        Keyring::read(&dir.path().join("absent")),
        Err(KeyError::Read { .. })
    ));
}
