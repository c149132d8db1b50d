// What of the compiled object is embedded. Included by `build.rs`.

use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// The object without its DWARF, which is most of it and which neither the loader nor the kernel reads. BTF, and with it the lines in
/// the verifier's log, stays.
///
/// # Errors
/// When it is no ELF file.
pub fn without_dwarf(object: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut file = Builder::read(object)?;
    for section in &mut file.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    file.delete_orphans();
    // bpf-linker keeps the names of sections with those of symbols.
    let names = file.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    file.write(&mut stripped)?;
    Ok(stripped)
}
