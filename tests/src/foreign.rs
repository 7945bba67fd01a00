//! Programs of others: the smallest XDP program there is, as an object file that `ip link` loads.

use anyhow::Result;
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, StandardSegment, Symbol, SymbolSection},
};

/// `r0 = 2; exit`: XDP_PASS.
const PASS: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// An object file with a program in section `xdp` that lets every packet pass.
pub fn passing_xdp() -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let segment = object.segment_name(StandardSegment::Text).to_vec();
    let section = object.add_section(segment.clone(), b"xdp".to_vec(), SectionKind::Text);
    object.append_section_data(section, &PASS, 8);
    object.add_symbol(Symbol {
        name: b"foreign".to_vec(),
        value: 0,
        size: PASS.len().try_into()?,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    let license = object.add_section(segment, b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    Ok(object.write()?)
}
