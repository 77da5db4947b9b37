//! Kernel files for Rust, made of `kernels/` by `build.rs`: their texts, and for each file a module of that path with the structs that its kernels
//! take and the constants that launchers share (`LAUNCHER_CONSTANT`).
//!
//! A struct is `#[repr(C)]` with the fields of the kernel's, in their order; pointers are device addresses.

// A family of kernels is one file in a folder of its name.
#![allow(clippy::module_inception)]

// build.rs uses the rest of it.
#[allow(dead_code)]
pub(super) mod declarations;

include!(concat!(env!("OUT_DIR"), "/kernel_files.rs"));

#[cfg(test)]
mod tests {
    use super::declarations::{Declarations, read};
    use super::normalization::batch_norm::ReduceArguments;
    use super::*;

    fn of(text: &str) -> Result<Declarations, String> {
        read("a.cu", &|name| Some((name.to_string(), text.to_string())).filter(|_| name == "a.cu"))
    }

    /// A file whose kernel takes a struct with these lines.
    fn with_fields(fields: &str) -> Result<Declarations, String> {
        of(&format!(
            "struct Inner {{\n    u32 a;\n}};\nstruct Argument {{\n{fields}\n}};\nKERNEL(256, name, Argument) {{\n"
        ))
    }

    #[test]
    fn fields_lie_where_c_puts_them() {
        use std::mem::offset_of;
        assert_eq!(size_of::<ReduceArguments>(), 6 * 8 + 32 + 8);
        assert_eq!(offset_of!(ReduceArguments, partial), 40);
        assert_eq!(offset_of!(ReduceArguments, chunks.cut.chunks), 48 + 20);
        assert_eq!(size_of::<convolution::sm90::arguments::Phase>(), 256);
        assert_eq!(size_of::<convolution::sm90::arguments::Arguments>() % 64, 0);
    }

    #[test]
    fn declarations_are_read_in_any_spacing_up_to_the_first_member_function() {
        let text = "constexpr u32 SIDE = 60 << 1 + 2, HALF = SIDE / (1 + 1) - 1;\nLAUNCHER_CONSTANT int STEP=HALF*2;  // two\n\
                    constexpr int OF_A_VARIANT = TILE_M * 2;\n\
                    /// An array, \n/// and more.\ntemplate <class X>\nstruct   Argument{\n    const X *x; // or null\n    // nothing\n\
                    u8 bytes[ STEP - 470 ];\n    int a, b;\n    __device__ int sum() { return a + b; }\n};\n\
                    KERNEL_WITH_PREAMBLE( SIDE, name, Argument<float>, preamble) {";
        let found = of(text).unwrap();
        let values: Vec<_> = found.constants.iter().map(|c| (c.name.as_str(), c.value, c.shared)).collect();
        assert_eq!(values, [("SIDE", 480, false), ("HALF", 239, false), ("STEP", 478, true)]);
        let kernel = &found.kernels[0];
        assert_eq!((kernel.argument.as_str(), kernel.threads), ("Argument<float>", Some(480)));
        let layout = &kernel.layout;
        assert_eq!((layout.doc.as_str(), layout.size), ("An array, and more.", 24));
        let fields: Vec<_> = layout.fields.iter().map(|field| (field.name.as_str(), field.extent)).collect();
        assert_eq!(fields, [("x", None), ("bytes", Some(8)), ("a", None), ("b", None)]);
        assert_eq!((layout.fields[0].doc.as_str(), layout.fields[0].place.as_str()), ("or null", "a.cu:8"));
    }

    #[test]
    fn a_declaration_that_is_not_understood_says_where_and_what_was_expected() {
        with_fields("    Inner inner;\n    float x;").unwrap();
        for (fields, found, expected) in [
            ("    Inner inner;\n    float* x;", "a.cu:6", "no 4 bytes of padding"),
            ("    bool flag;", "a.cu:5: found `bool flag;`", "one `struct bool {` before it"),
            ("    Argument itself;", "a.cu:5: found `Argument itself;`", "one `struct Argument {` before it"),
            ("    u32 a = 0;", "a.cu:5: found `u32 a = 0;`", "`Type name, name[extent];`"),
            ("    u32 a;  u32 b;", "a.cu:5", "in one line"),
            ("    float* a, b;", "a.cu:5", "`Type* name;`"),
            ("    unsigned int a;", "a.cu:5", "`Type name"),
            ("    u32 a[N];", "a.cu:5: found `u32 a[N];`", "an array of 1 to 4096 elements"),
            ("    u32 a;\n    u64 b;", "a.cu:6: found `u64 b;`", "no 4 bytes of padding before it"),
            ("    u64 a;\n    u32 b;", "a.cu:7: found `};`", "no 4 bytes of padding before it"),
        ] {
            let error = with_fields(fields).unwrap_err();
            assert!(error.contains(found) && error.contains(expected), "{error}");
        }
        for (text, expected) in [
            (
                "LAUNCHER_CONSTANT u32 N = TILE_M;",
                "a.cu:1: found `LAUNCHER_CONSTANT u32 N = TILE_M;`, expected",
            ),
            ("LAUNCHER_CONSTANT float N = 1;", "`LAUNCHER_CONSTANT u32 NAME = expression;`"),
            ("KERNEL(256, name, Missing) {", "expected one `struct Missing {` before it"),
            ("KERNEL(256,", "`KERNEL(threads, name, Argument)` in one line"),
            ("struct A {\nu32 a;\n};\nstruct A {\nu32 b;\n};\nKERNEL(1, name, A)", "one `struct A {`"),
            ("struct A {\nu32 a;\nKERNEL(1, name, A)", "found `KERNEL(1, name, A)`"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
