//! Files that are no feature caches: what they are, and how to make one of them.

/// Formats that people keep features in, by their first bytes.
const FORMATS: [(&[u8], &str); 8] = [
    (b"\x1f\x8b", "a gzip file; unpack it first"),
    (b"\x80", "a Python pickle, which is never executed; save arrays with `numpy.savez`"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file; save its arrays with `numpy.savez`"),
    (b"MATLAB", "a MATLAB file; save its arrays with `numpy.savez`"),
    (b"PK", "a zip archive; as an .npz it is read on its own"),
    (b"\x93NUMPY", "an .npy array"),
    (b"BZh", "a bzip2 file; unpack it first"),
    (b"\xfd7zXZ", "an xz file; unpack it first"),
];

/// What a file with these first bytes seems to be.
pub(super) fn beginning(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "0 bytes (an empty file)".to_string();
    }
    if let Some((_, what)) = FORMATS.iter().find(|(first, _)| bytes.starts_with(first)) {
        return (*what).to_string();
    }
    let first = &bytes[..bytes.len().min(6)];
    if first.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        return format!("text that begins `{}`", String::from_utf8_lossy(first).trim());
    }
    let hex: Vec<String> = first.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} bytes that begin {} (hexadecimal)", bytes.len(), hex.join(" "))
}

/// What an archive with members of these names, none of them `features`, seems to be.
pub(super) fn members(names: &[&str]) -> String {
    const MOST: usize = 12;
    if names.iter().any(|name| name.ends_with("data.pkl")) {
        return "a file of torch.save; save `numpy.savez(file, features=features.numpy(), logits=logits.numpy(), \
                labels=labels.numpy())`"
            .to_string();
    }
    if names.contains(&"indptr") {
        return "a sparse matrix of SciPy; save its dense form, `features=matrix.toarray()`".to_string();
    }
    if names.is_empty() {
        return "an archive without members".to_string();
    }
    let more = if names.len() > MOST { ", …" } else { "" };
    let names = names[..names.len().min(MOST)].join(", ");
    let advice = if names.starts_with("arr_0") {
        " (`numpy.savez(file, features=…, logits=…, labels=…)` names them)"
    } else {
        ""
    };
    format!("arrays named {names}{more}{advice}")
}
