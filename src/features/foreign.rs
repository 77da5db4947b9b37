//! Files that are no feature caches: what they are, and how to make one of them.

use crate::files::describe_content;

/// Formats whose arrays can be saved as a cache.
const WITH_ARRAYS: [(&[u8], &str); 3] = [
    (b"\x80", "a Python pickle, which is never executed; save arrays with `numpy.savez`"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file; save its arrays with `numpy.savez`"),
    (b"MATLAB", "a MATLAB file; save its arrays with `numpy.savez`"),
];

/// Kind of a file with these first bytes, for people.
pub(super) fn beginning(bytes: &[u8]) -> String {
    let found = WITH_ARRAYS.iter().find(|(first, _)| bytes.starts_with(first));
    found.map_or_else(|| describe_content(bytes), |(_, what)| (*what).to_string())
}

/// Kind of an archive with members of these names, none of them `features`, for people.
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
