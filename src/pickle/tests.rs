//! Promises of the pickle reader: real pickles of every binary protocol are read correctly, hostile ones end in a message.

use super::*;

const VALUES: [&[u8]; 4] = [
    include_bytes!("../../tests/fixtures/weights/values_protocol2.pkl"),
    include_bytes!("../../tests/fixtures/weights/values_protocol3.pkl"),
    include_bytes!("../../tests/fixtures/weights/values_protocol4.pkl"),
    include_bytes!("../../tests/fixtures/weights/values_protocol5.pkl"),
];
const ARRAYS: [&[u8]; 2] = [
    include_bytes!("../../tests/fixtures/weights/arrays_protocol2.pkl"),
    include_bytes!("../../tests/fixtures/weights/arrays_protocol5.pkl"),
];
const INERT: [&[u8]; 2] = [
    include_bytes!("../../tests/fixtures/weights/inert_protocol2.pkl"),
    include_bytes!("../../tests/fixtures/weights/inert_protocol5.pkl"),
];
const CIFAR_BATCH: &[u8] = include_bytes!("../../tests/fixtures/weights/cifar_batch.pkl");

fn refused(bytes: &[u8]) -> Problem {
    read(bytes).unwrap_err()
}

#[test]
fn every_binary_protocol_gives_the_same_values() {
    for bytes in VALUES {
        let pickle = read(bytes).unwrap();
        assert_eq!(pickle.length(), bytes.len());
        let root = pickle.root();
        assert!(root.get("none").unwrap().is_none());
        let truth: Vec<_> = root.get("truth").unwrap().elements().unwrap().map(Node::boolean).collect();
        assert_eq!(truth, [Some(true), Some(false)]);
        let integers: Vec<_> = root.get("integers").unwrap().elements().unwrap().map(Node::integer).collect();
        let expected = [0, 255, 256, -1, 70_000, -(1 << 31), 1 << 40, -(1 << 40)];
        assert_eq!(integers, expected.map(Some));
        let wide = root.get("wide").unwrap().long_integer().unwrap();
        assert_eq!(wide, [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19]);
        assert_eq!(root.get("float").unwrap().float(), Some(-1.5));
        assert_eq!(root.get("text").unwrap().text(), Some("naïve"));
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(root.get("bytes").unwrap().bytes(), Some(&bytes[..]));
        let nested = root.get("nested").unwrap();
        assert_eq!(nested.get("list").unwrap().describe(), "a list of 2 elements");
        let ordered = nested.get("ordered").unwrap().entries().unwrap();
        let ordered: Vec<_> =
            ordered.iter().map(|(k, v)| (k.text().unwrap(), v.integer().unwrap())).collect();
        assert_eq!(ordered, [("b", 1), ("a", 2)]);
        assert_eq!(root.get("counter").unwrap().entries().unwrap().len(), 2);
    }
}

#[test]
fn numpy_arrays_keep_shape_order_and_values() {
    for bytes in ARRAYS {
        let pickle = read(bytes).unwrap();
        let array = |name| pickle.root().get(name).unwrap().array().unwrap().unwrap();
        let unsigned = array("u1");
        assert_eq!((&unsigned.shape[..], unsigned.bytes), (&[2, 3][..], &[0, 1, 2, 3, 4, 5][..]));
        let fortran = array("fortran");
        let values: Vec<_> = (0..6).map(|i| fortran.float_at(i).unwrap()).collect();
        assert!(fortran.fortran_order);
        assert_eq!(values, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!((array("big").integer_at(0), array("big").integer_at(1)), (Some(1), Some(-2)));
        assert_eq!(array("half").float_at(0), Some(0.5));
        assert_eq!(pickle.root().get("scalar").unwrap().float(), Some(0.25));
    }
}

#[test]
fn a_cifar_batch_of_python_2_opens() {
    let pickle = read(CIFAR_BATCH).unwrap();
    let data = pickle.root().get("data").unwrap().array().unwrap().unwrap();
    assert_eq!((&data.shape[..], data.bytes[3073]), (&[2, 3072][..], (3073 % 251) as u8));
    let labels: Vec<_> =
        pickle.root().get("labels").unwrap().elements().unwrap().map(Node::integer).collect();
    assert_eq!(labels, [Some(6), Some(9)]);
    let names = pickle.root().get("filenames").unwrap();
    assert_eq!(names.element(1).unwrap().text(), Some("truck.png"));
}

#[test]
fn objects_of_unknown_classes_stay_descriptions_and_hide_nothing_else() {
    for bytes in [INERT[0], INERT[1]] {
        let pickle = read(bytes).unwrap();
        let described = |key| pickle.root().get(key).unwrap().describe();
        assert_eq!(described("namespace"), "an object that argparse.Namespace makes");
        assert_eq!(described("moment"), "an object that datetime.datetime makes");
        assert!(described("path").contains("pathlib"), "{}", described("path"));
        assert_eq!(described("function"), "the name posix.system");
        assert_eq!(described("result_of_a_method"), "an object that only running the pickle could make");
        assert_eq!(described("keywords"), "an object that only running the pickle could make");
        assert_eq!(pickle.root().get("epoch").unwrap().integer(), Some(7));
        let history = pickle.root().get("history").unwrap();
        assert_eq!(history.get("loss").unwrap().elements().unwrap().len(), 2);
    }
}

#[test]
fn a_call_is_described_and_never_made() {
    let pickle = read(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.").unwrap();
    let call = pickle.root().call().unwrap();
    assert_eq!(
        (call.callable, call.argument(0).unwrap().text()),
        (Global::new("os", "system"), Some("true"))
    );
    let pickle = read(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.").unwrap();
    assert_eq!(pickle.root().global(), Some(Global::new("builtins", "eval")));
    for instance in [&b"(i__main__\nEvil\n."[..], b"(c__main__\nEvil\no."] {
        assert_eq!(read(instance).unwrap().root().call().unwrap().callable, Global::new("__main__", "Evil"));
    }
    assert_eq!(
        read(b"\x82\x01.").unwrap().root().describe(),
        "an object that only running the pickle could make"
    );
    assert!(refused(b"\x97.").found.contains("out-of-band"));
}

#[test]
fn what_ends_too_early_or_lacks_a_value_is_refused() {
    for length in 0..VALUES[0].len() {
        assert!(read(&VALUES[0][..length]).is_err(), "cut to {length} bytes");
    }
    for bytes in
        [&b"."[..], b"0.", b"t.", b"(N.", b"\x85.", b"K\x01a.", b"]NNs.", b"(NNNd.", b"h\x05.", b"NNR."]
    {
        // A mark that stays open is the one thing Python's own machine tolerates.
        assert_eq!(read(bytes).is_err(), bytes != b"(N.", "{bytes:?}");
    }
}

#[test]
fn lengths_beyond_the_data_allocate_nothing() {
    for bytes in [
        &b"X\xff\xff\xff\xffabc"[..],
        b"T\xff\xff\xff\xff",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffx",
        b"\x8b\xff\xff\xff\x7f",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff.",
    ] {
        read(bytes).unwrap_err();
    }
}

#[test]
fn deep_nesting_needs_no_stack_and_open_marks_are_bounded() {
    // ((((…)))): each level refers to the one inside it; dropping and describing must not recurse.
    let mut deep = vec![b')'];
    deep.resize(1_000_000, 0x85);
    deep.push(b'.');
    let pickle = read(&deep).unwrap();
    assert_eq!(pickle.root().describe(), "a tuple of 1 elements");
    drop(pickle);
    assert!(refused(&[b'('; 5_000]).expected.contains("at most 1000 open"));
}

#[test]
fn a_list_that_holds_itself_is_only_data() {
    let pickle = read(b"]q\x00h\x00a.").unwrap();
    let inner = pickle.root().element(0).unwrap().element(0).unwrap();
    assert_eq!(inner.describe(), "a list of 1 elements");
}

#[test]
fn instructions_without_end_and_repeated_encoding_are_bounded() {
    let mut many = vec![b'N'; MOST_OPCODES as usize + 1];
    many.push(b'.');
    assert!(refused(&many).found.contains("more"));

    // One text of 1000 characters, encoded a thousand times by 6 bytes each.
    let mut bomb = b"X\xe8\x03\x00\x00".to_vec();
    bomb.resize(1_005, b'a');
    bomb.extend(b"\x85q\x000c_codecs\nencode\nq\x010");
    for _ in 0..1_000 {
        bomb.extend(b"h\x01h\x00R0");
    }
    bomb.extend(b"N.");
    assert!(refused(&bomb).found.contains("over and over"));
}

#[test]
fn an_array_that_contradicts_itself_is_described() {
    let mut bytes = CIFAR_BATCH.to_vec();
    // The shape (2, 3072) begins with K\x02M; make it (3, 3072).
    let at = bytes.windows(4).position(|w| w == b"K\x02M\x00").unwrap();
    bytes[at + 1] = 3;
    let pickle = read(&bytes).unwrap();
    let message = pickle.root().get("data").unwrap().array().unwrap_err();
    assert!(message.contains("[3, 3072]") && message.contains("6144 bytes"), "{message}");
}
