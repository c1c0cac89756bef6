//! The committed parameter structs are what bindgen makes of params.h.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Says at the top of the generated file what it is and how it came to be.
const HEADER: &str = "//! The structs of params.h, where each field is explained.\n\
                      // Made from params.h: DUEL_BLESS=1 cargo test -p duel-kernels\n\
                      #![allow(missing_docs)] // they are in params.h";

/// bindgen panics without libclang.
fn libclang_is_here() -> bool {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let found = std::panic::catch_unwind(|| bindgen::clang_version().full).is_ok();
    std::panic::set_hook(hook);
    found
}

fn generate(kernels: &Path) -> String {
    bindgen::Builder::default()
        .header(kernels.join("params.h").to_string_lossy())
        .clang_args(["-xc", "-std=c11"])
        .allowlist_file(".*params\\.h")
        .use_core()
        .ctypes_prefix("core::ffi")
        .prepend_enum_name(false)
        .derive_copy(true)
        .derive_debug(true)
        .layout_tests(true)
        .disable_header_comment()
        .rustfmt_configuration_file(Some(kernels.join("../rustfmt.toml")))
        .formatter(bindgen::Formatter::Rustfmt)
        .raw_line(HEADER)
        .generate()
        .expect("params.h is plain C")
        .to_string()
}

#[test]
fn sys_rs_is_what_bindgen_makes_of_params_h() {
    let kernels = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    if !libclang_is_here() {
        assert!(
            std::env::var_os("REQUIRE_LIBCLANG").is_none(),
            "libclang is not here, see LIBCLANG_PATH in kernels/README.md"
        );
        // Not eprintln: the test harness would keep that to itself.
        drop(writeln!(
            std::io::stderr(),
            "SKIPPED: sys.rs is not checked, libclang is not here (LIBCLANG_PATH)"
        ));
        return;
    }
    let fresh = generate(&kernels);
    let committed = kernels.join("src/sys.rs");
    if std::env::var_os("DUEL_BLESS").is_some() {
        std::fs::write(&committed, &fresh).expect("sys.rs can be written");
        return;
    }
    // How rustfmt breaks lines is its own affair.
    let dense = |text: &str| text.split_whitespace().collect::<String>();
    let old = std::fs::read_to_string(&committed).expect("sys.rs is there");
    assert!(
        dense(&old) == dense(&fresh),
        "kernels/src/sys.rs does not match params.h; run DUEL_BLESS=1 cargo test -p duel-kernels"
    );
}
