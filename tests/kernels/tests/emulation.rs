//! The conformance suite on the host emulation, under every schedule.

duel_kernel_tests::conformance!(duel_kernel_tests::Emulated);

#[test]
fn the_table_of_kernels_is_what_the_sources_register() {
    let mut table: Vec<_> = duel_kernels::KERNELS.iter().map(|k| (k.name.to_string(), k.threads)).collect();
    table.sort();
    let mut registered = duel_kernel_tests::Emulation::kernels();
    registered.retain(|(name, _)| !name.contains('@'));
    assert_eq!(table, registered);
}
