//! How deep the stack of an eBPF program gets: what a newer kernel lets pass, Linux 6.1 may refuse at load.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind};

/// What a chain of calls may use, bytes (`MAX_BPF_STACK`).
const MOST: u64 = 512;
/// What each function takes is rounded up to this (`check_max_stack_depth` of Linux 6.1; newer ones are finer).
const UNIT: u64 = 32;

const FRAME: u8 = 10;
const INSTRUCTION: u64 = 8;

/// Where a function begins: the number of its section, and the offset there.
type Place = (usize, u64);

/// A function as far as it matters here.
#[derive(Default)]
struct Function {
    name: String,
    end: u64,
    is_program: bool,
    depth: u64,
    calls: BTreeSet<Place>,
}

/// Fails when a program in the object at `path` may go deeper than Linux 6.1 allows.
pub(crate) fn check(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let object = object::File::parse(&*bytes).with_context(|| format!("parsing {}", path.display()))?;
    let mut functions = functions(&object)?;
    measure(&object, &mut functions)?;
    for (place, function) in functions.iter().filter(|(_, function)| function.is_program) {
        let (depth, chain) = deepest(&functions, place);
        ensure!(
            depth <= MOST,
            "{} needs {depth} bytes of stack, of {MOST}: {}",
            function.name,
            chain.join(", ")
        );
    }
    Ok(())
}

fn functions(object: &object::File<'_>) -> Result<BTreeMap<Place, Function>> {
    let text = object.section_by_name(".text").map(|section| section.index().0);
    let mut functions = BTreeMap::new();
    for symbol in object.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() != 0) {
        let section = symbol.section_index().context("a function lies in a section")?.0;
        let function = Function {
            name: symbol.name()?.to_owned(),
            end: symbol.address() + symbol.size(),
            is_program: Some(section) != text,
            ..Function::default()
        };
        functions.insert((section, symbol.address()), function);
    }
    Ok(functions)
}

/// Notes what each function puts on its stack, and which ones it calls or has called.
fn measure(object: &object::File<'_>, functions: &mut BTreeMap<Place, Function>) -> Result<()> {
    for section in object.sections() {
        let data = section.data()?;
        let index = section.index().0;
        for (&(_, start), function) in functions.iter_mut().filter(|((section, _), _)| *section == index) {
            let code =
                data.get(start as usize..function.end as usize).context("a function lies in its section")?;
            function.depth = depth(code);
        }
        for (offset, relocation) in section.relocations() {
            let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
            let symbol = object.symbol_by_index(symbol)?;
            let Some(target) = symbol.section_index() else { continue };
            let caller = functions.range_mut(..=(index, offset)).next_back();
            let Some((_, caller)) = caller.filter(|((section, _), it)| *section == index && offset < it.end)
            else {
                continue;
            };
            let local = if symbol.kind() == SymbolKind::Section { addend(data, offset) } else { 0 };
            caller.calls.insert((target.0, symbol.address() + local));
        }
    }
    Ok(())
}

/// Of a function that is named by its section: where it lies there. A call counts instructions from the next one, a callback
/// bytes.
fn addend(data: &[u8], offset: u64) -> u64 {
    const CALL: u8 = 0x85;
    let at = offset as usize;
    let Some(instruction) = data.get(at..at + 8) else { return 0 };
    let number = i32::from_le_bytes([instruction[4], instruction[5], instruction[6], instruction[7]]);
    let number = if instruction[0] == CALL { (i64::from(number) + 1) * 8 } else { i64::from(number) };
    number.unsigned_abs()
}

/// The lowest place below the frame pointer that a function names.
fn depth(code: &[u8]) -> u64 {
    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    let (mut deepest, mut pointers) = (0, 0_u16);
    for instruction in code.chunks_exact(INSTRUCTION as usize) {
        let (operation, to, from) = (instruction[0], instruction[1] & 15, instruction[1] >> 4);
        let offset = i64::from(i16::from_le_bytes([instruction[2], instruction[3]]));
        let number =
            i64::from(i32::from_le_bytes([instruction[4], instruction[5], instruction[6], instruction[7]]));
        let below = match operation & 7 {
            1 if from == FRAME => offset,
            2 | 3 if to == FRAME => offset,
            _ if operation == ADD && pointers >> to & 1 != 0 => number,
            _ => 0,
        };
        deepest = deepest.max((-below).max(0));
        if operation == MOVE {
            pointers = pointers & !(1 << to) | u16::from(from == FRAME) << to;
        }
    }
    deepest.unsigned_abs()
}

/// The most that a function and those below it need, with the way there.
fn deepest(functions: &BTreeMap<Place, Function>, place: &Place) -> (u64, Vec<String>) {
    let Some(function) = functions.get(place) else { return (0, Vec::new()) };
    let below = function.calls.iter().filter(|&called| called != place);
    let (depth, mut chain) =
        below.map(|called| deepest(functions, called)).max_by_key(|(depth, _)| *depth).unwrap_or_default();
    chain.insert(0, format!("{} {}", function.name, function.depth));
    (depth + function.depth.max(1).next_multiple_of(UNIT), chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_place_is_found() {
        let instruction = |operation, registers, offset: i16, number: i32| {
            let mut bytes = vec![operation, registers];
            bytes.extend(offset.to_le_bytes());
            bytes.extend(number.to_le_bytes());
            bytes
        };
        let stored = instruction(0x7b, 0x1a, -72, 0); // *(u64 *)(r10 - 72) = r1
        let copied = instruction(0xbf, 0xa2, 0, 0); // r2 = r10
        let lowered = instruction(0x07, 0x02, 0, -160); // r2 += -160
        let elsewhere = instruction(0x07, 0x03, 0, -200); // r3 += -200
        assert_eq!(depth(&[&stored[..], &elsewhere].concat()), 72);
        assert_eq!(depth(&[&stored[..], &copied, &lowered].concat()), 160);
    }

    #[test]
    fn every_share_is_rounded_up() {
        let function = |name: &str, depth, calls: &[Place]| Function {
            name: name.to_owned(),
            depth,
            calls: calls.iter().copied().collect(),
            ..Function::default()
        };
        let functions = [
            ((0, 0), function("program", 33, &[(1, 0), (1, 8)])),
            ((1, 0), function("shallow", 0, &[(1, 8)])),
            ((1, 8), function("deep", 100, &[])),
        ];
        let (depth, chain) = deepest(&functions.into(), &(0, 0));
        assert_eq!((depth, chain.join(", ").as_str()), (64 + 32 + 128, "program 33, shallow 0, deep 100"));
    }
}
