//! Property tests: whatever happens to the bytes of a data file, its reader answers with a data set or an error.

use std::io::Write;

use proptest::prelude::*;

use crate::support::data_files::{cifar_record, fixture, gzip, idx, open_named, pixels, png, put, zip};

/// A mutation of a file.
#[derive(Debug, Clone)]
pub(crate) enum Mutation {
    Set(prop::sample::Index, u8),
    Word(prop::sample::Index, u32),
    Cut(prop::sample::Index),
    Remove(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
}

/// Mutated files that each property tries: the number in the environment variable `RESIDUA_MUTATIONS`, for long
/// runs, or `default`.
pub(crate) fn cases(default: u32) -> u32 {
    let wanted = std::env::var("RESIDUA_MUTATIONS").unwrap_or_default();
    match wanted.parse() {
        Ok(cases) => cases,
        Err(_) if wanted.is_empty() => default,
        Err(_) => panic!("RESIDUA_MUTATIONS={wanted}: expected a number of cases, such as 1000000"),
    }
}

pub(crate) fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let position = any::<prop::sample::Index>;
    let extreme = prop_oneof![any::<u32>(), Just(0), Just(u32::MAX), Just(i32::MAX as u32), 0..300u32];
    let one = prop_oneof![
        4 => (position(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        3 => (position(), extreme).prop_map(|(at, word)| Mutation::Word(at, word)),
        1 => position().prop_map(Mutation::Cut),
        1 => (position(), 1..40u8).prop_map(|(at, count)| Mutation::Remove(at, count)),
        1 => (position(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
    ];
    prop::collection::vec(one, 1..6)
}

pub(crate) fn mutated(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        if bytes.is_empty() {
            break;
        }
        match mutation {
            Mutation::Set(at, byte) => *at.get_mut(&mut bytes) = *byte,
            Mutation::Word(at, word) => {
                let at = at.index(bytes.len());
                bytes.iter_mut().skip(at).zip(word.to_le_bytes()).for_each(|(byte, new)| *byte = new);
            }
            Mutation::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Mutation::Remove(at, count) => {
                let at = at.index(bytes.len());
                bytes.drain(at..(at + usize::from(*count)).min(bytes.len()));
            }
            Mutation::Insert(at, new) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, new.iter().copied());
            }
        }
    }
    bytes
}

/// Opens the data and touches every sample; only a panic or an abort is a failure.
fn survives(name: &str) {
    match open_named(name) {
        Ok(set) => {
            if let Some(taxonomy) = set.taxonomy() {
                assert_eq!(set.class_names(), taxonomy.subclasses);
                assert_eq!(taxonomy.parents.len(), taxonomy.subclasses.len());
                let known = |parent: &usize| *parent < taxonomy.superclasses.len();
                assert!(taxonomy.parents.iter().flatten().all(known));
            }
            for index in 0..set.len().min(100) {
                let label = set.label(index);
                assert!(
                    label == -1 || (label as usize) < set.class_names().len(),
                    "label {label} without a name"
                );
                if let Ok(image) = set.image(index) {
                    assert_eq!(image.pixels.len(), 3 * image.width as usize * image.height as usize);
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(96), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cifar_binaries(changes in mutations()) {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "test.bin", mutated([cifar_record(&[1, 2], 0), cifar_record(&[3, 4], 1)].concat(), &changes));
        survives(&format!("cifar100:{}", root.path().display()));
        survives(&format!("cifar100:{}?labels=both", root.path().display()));
    }

    #[test]
    fn cifar_pickles(changes in mutations(), header in any::<bool>()) {
        let root = tempfile::tempdir().unwrap();
        let mut batch = std::fs::read(fixture("cifar-100-python/test")).unwrap();
        let rest = if header { batch.split_off(300) } else { Vec::new() };
        put(root.path(), "test", [mutated(batch, &changes), rest].concat());
        survives(&format!("cifar100:{}?labels=both", root.path().display()));
    }

    #[test]
    fn mat_files(changes in mutations(), header in any::<bool>()) {
        let root = tempfile::tempdir().unwrap();
        let mut bytes = std::fs::read(fixture("svhn_plain.mat")).unwrap();
        let rest = if header { bytes.split_off(200) } else { Vec::new() };
        let bytes = [mutated(bytes, &changes), rest].concat();
        put(root.path(), "plain.mat", &bytes);
        survives(&format!("svhn:{}", root.path().join("plain.mat").display()));
        // The same array inside a compressed element: the mutation survives the checksum.
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&bytes[bytes.len().min(128)..]).unwrap();
        let stream = encoder.finish().unwrap();
        let mut packed = std::fs::read(fixture("svhn_plain.mat")).unwrap();
        packed.truncate(128);
        packed.extend(15u32.to_le_bytes());
        packed.extend((stream.len() as u32).to_le_bytes());
        packed.extend(stream);
        put(root.path(), "packed.mat", packed);
        survives(&format!("svhn:{}", root.path().join("packed.mat").display()));
    }

    #[test]
    fn compressed_mat_files(changes in mutations()) {
        let root = tempfile::tempdir().unwrap();
        let bytes = std::fs::read(fixture("svhn_compressed.mat")).unwrap();
        put(root.path(), "t.mat", mutated(bytes, &changes));
        survives(&format!("svhn:{}", root.path().join("t.mat").display()));
    }

    #[test]
    fn idx_files(changes in mutations()) {
        let root = tempfile::tempdir().unwrap();
        let bytes = mutated(idx(0x803, &[2, 3, 5], &pixels(0, 30)), &changes);
        let labels = put(root.path(), "l", idx(0x801, &[2], &[1, 0]));
        for (file, bytes) in [("i", bytes.clone()), ("i.gz", gzip(&bytes)), ("j.gz", mutated(gzip(&bytes), &changes))] {
            put(root.path(), file, bytes);
            let images = root.path().join(file);
            survives(&format!("idx:{}", images.display()));
            survives(&format!("idx:{},{}", images.display(), labels.display()));
        }
    }

    #[test]
    fn tables_and_lists(changes in mutations()) {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "1.png", png(1, 1, [0; 3]));
        let csv = b"image,superclass_index,subclass_index\n1.png,0,2\n\"2.png\",1,1\n".to_vec();
        put(root.path(), "t.csv", mutated(csv, &changes));
        put(root.path(), "2.png", png(1, 1, [0; 3]));
        put(root.path(), "subclass_mapping.csv", mutated(b"index,class\n0,a\n1,\"b,c\"\n2,d\n".to_vec(), &changes));
        put(root.path(), "l.txt", mutated(b"1.png 3\n1.png -1\n".to_vec(), &changes));
        let place = root.path().display();
        survives(&format!("csv:{place}/t.csv,images={place}"));
        survives(&format!("list:{place}/l.txt,root={place}"));
    }

    #[test]
    fn mapping_files(table in mutations(), fine in mutations(), coarse in mutations(), which in 0..4u8) {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "1.png", png(1, 1, [0; 3]));
        put(root.path(), "2.png", png(1, 1, [0; 3]));
        let csv = b"image,superclass_index,subclass_index\n1.png,0,1\n2.png,1,0\n".to_vec();
        // Most changes to several files at once are found in the first of them; each alone gets its turn.
        put(root.path(), "t.csv", if which % 3 == 0 { mutated(csv, &table) } else { csv });
        let change = |bytes: &[u8], changes, when| {
            if which == when || which == 3 { mutated(bytes.to_vec(), changes) } else { bytes.to_vec() }
        };
        put(root.path(), "subclass_mapping.csv", change(b"index,class\n0,novel\n1,\"b,c\"\n2,d\n", &fine, 1));
        put(root.path(), "superclass_mapping.csv", change(b"index,class\n1,novel\n0,dog\n", &coarse, 2));
        let place = root.path().display();
        for labels in ["both", "subclass", "superclass"] {
            survives(&format!("csv:{place}/t.csv,images={place}?labels={labels}"));
        }
    }

    #[test]
    fn zips(changes in mutations()) {
        let root = tempfile::tempdir().unwrap();
        let members = [("d/1.png", png(5, 4, [9; 3])), ("d/2.png", png(3, 3, [1; 3]))];
        let path = put(root.path(), "z.zip", mutated(zip(&members), &changes));
        survives(&format!("images:{}", path.display()));
    }

    #[test]
    fn image_files(changes in mutations(), which in any::<prop::sample::Index>()) {
        // Files that other programs wrote; half of them JPEGs, whose decoder is in C.
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images");
        let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| !["json", "gz", "py"].iter().any(|ending| name.to_str().unwrap().ends_with(ending)));
        names.sort_unstable();
        let bytes = std::fs::read(folder.join(which.get(&names))).unwrap();
        let root = tempfile::tempdir().unwrap();
        // Content decides what a file is, not its name.
        let path = put(root.path(), "1.png", mutated(bytes, &changes));
        survives(&format!("images:{}", path.display()));
    }
}
