//! The drawings of `docs/fault.md` and `docs/fork.md` are what the system says of itself.
//!
//! Each block marked `state` in a document shows the state after one event. The tests here cause
//! the events and compare. `RENEW_DRAWINGS=1 cargo test -p bsdvm --test suite as_drawn` writes the
//! blocks; the words around them are written by hand.

use crate::common::{
    BASE, Files, MemorySwap, PAGE, TestVm, anon, at, check, map_at, pages, space, vm,
};
use bsdvm::{Access, Inherit, Mapping, PagePlace, Prot, Sharing, ShownEntry, Space};
use bsdvm_sim::Sim;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// What stands around a drawing in a document.
const FENCES: [&str; 2] = ["```state\n", "```\n"];

/// The drawings of one document, in order.
struct Drawings<'v> {
    vm: &'v TestVm,
    /// Letters for frames, in the order in which they are first seen.
    frames: Vec<u32>,
    drawn: Vec<String>,
}

impl<'v> Drawings<'v> {
    fn new(vm: &'v TestVm) -> Drawings<'v> {
        Drawings {
            vm,
            frames: Vec::new(),
            drawn: Vec::new(),
        }
    }

    fn letter(&mut self, frame: u32) -> char {
        let known = self.frames.iter().position(|f| *f == frame);
        let place = known.unwrap_or_else(|| {
            self.frames.push(frame);
            self.frames.len() - 1
        });
        char::from(b'A' + place as u8)
    }

    /// Draws the maps of `spaces` by name, the objects that they lead to, and the translations.
    fn draw(&mut self, spaces: &[(&str, Space<'v, Sim<12>>)]) {
        check(self.vm);
        let mut out = String::new();
        let mut objects = BTreeMap::new();
        for (name, space) in spaces {
            for entry in space.show().entries() {
                writeln!(out, "{name:7}{}", entry_line(&entry)).unwrap();
                objects.extend(entry.objects().map(|o| (o.object.number(), *o)));
            }
        }
        for (number, object) in &objects {
            write!(out, "object {number}").unwrap();
            for page in self.vm.object(object.object).pages() {
                let place = match page.place {
                    PagePlace::Resident(frame) => self.letter(frame.0).to_string(),
                    PagePlace::Swapped(_) => "swap".to_owned(),
                };
                write!(out, "   {}: {place}", page.offset / PAGE).unwrap();
                out.push_str(if page.dirty { " dirty" } else { "" });
                out.push_str(if page.wired > 0 { " wired" } else { "" });
            }
            if let Some((backing, offset)) = object.backing {
                let (backing, offset) = (backing.number(), offset / PAGE);
                write!(out, "   ──> object {backing}").unwrap();
                out.push_str(&match offset {
                    0 => String::new(),
                    n => format!(" from page {n}"),
                });
            }
            out.push('\n');
        }
        for (name, space) in spaces {
            let mut line = String::new();
            space.with_pmap(|pmap| {
                use bsdvm::Pmap;
                pmap.scan(pages(0, 64), &mut |va, t| {
                    let (page, frame) = ((va.0 - BASE) / PAGE, self.letter(t.frame.0));
                    write!(line, "   {page} ──> {frame} {}", t.prot).unwrap();
                });
            });
            let line = if line.is_empty() { "   nothing" } else { &line };
            let whose = match spaces {
                [_] => "pmap".to_owned(),
                _ => format!("{name}'s pmap"),
            };
            writeln!(out, "{whose}{line}").unwrap();
        }
        self.drawn.push(out);
    }

    /// Compares with the document, or writes it.
    #[track_caller]
    fn compare(self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../docs")
            .join(name);
        let text = std::fs::read_to_string(&path).expect("the document");
        let mut parts = text.split(FENCES[0]);
        let mut new = parts.next().unwrap_or_default().to_owned();
        let mut found = Vec::new();
        let mut drawn = self.drawn.iter();
        for part in parts {
            let (old, after) = part.split_once(FENCES[1]).expect("a block ends");
            found.push(old);
            let drawing = drawn.next().map_or(old, String::as_str);
            new.extend([FENCES[0], drawing, FENCES[1], after]);
        }
        if std::env::var_os("RENEW_DRAWINGS").is_some() {
            std::fs::write(&path, new).expect("the document can be written");
        } else {
            assert_eq!(found, self.drawn, "docs/{name}");
        }
        assert_eq!(found.len(), self.drawn.len(), "drawings in docs/{name}");
    }
}

fn entry_line(entry: &ShownEntry) -> String {
    let info = &entry.info;
    let page = |va: bsdvm::VirtAddr| (va.0 - BASE) / PAGE;
    let mut line = format!(
        "pages {}-{} {}",
        page(info.range.start()),
        page(info.range.end()) - 1,
        info.prot
    );
    if info.sharing == Sharing::Shared || info.inherit == Inherit::Share {
        line.push_str(", shared");
    }
    if info.wired > 0 {
        line.push_str(", wired");
    }
    if info.copy_on_write {
        line.push_str(if info.needs_copy {
            ", copy needed"
        } else {
            ", copy done"
        });
    }
    match info.object {
        None => line.push_str(", no object"),
        Some(object) => write!(line, "   ──> object {}", object.number()).unwrap(),
    }
    match info.offset / PAGE {
        0 => {}
        n => write!(line, " from page {n}").unwrap(),
    }
    line
}

#[test]
fn faults_are_as_drawn() {
    let vm = vm(200);
    vm.swap_on(MemorySwap::leak(16)).unwrap();
    let file = vm.object_create(Files::leak().pager(1), 3 * PAGE).unwrap();
    let s = space(&vm, 64);
    let mut d = Drawings::new(&vm);
    let map = [("map", s)];

    anon(s, 0, 3);
    d.draw(&map);
    s.fault(at(0), Access::Write).unwrap();
    d.draw(&map);
    s.fault(at(1), Access::Read).unwrap();
    d.draw(&map);
    s.drop_translations(pages(0, 3));
    d.draw(&map);
    s.fault(at(0), Access::Read).unwrap();
    d.draw(&map);
    while vm.pageout_step(100) > 0 {}
    d.draw(&map);
    s.fault(at(0), Access::Read).unwrap();
    d.draw(&map);

    s.remove(pages(0, 3)).unwrap();
    let private = Mapping::object(file, PAGE, Sharing::Private, Prot::RW);
    map_at(s, 0, 2, private).unwrap();
    d.draw(&map);
    s.fault(at(0), Access::Read).unwrap();
    d.draw(&map);
    s.fault(at(0), Access::Write).unwrap();
    d.draw(&map);
    let shared = Mapping::object(file, PAGE, Sharing::Shared, Prot::RW);
    map_at(s, 4, 2, shared).unwrap();
    s.fault(at(5), Access::Read).unwrap();
    d.draw(&map);
    s.fault(at(5), Access::Write).unwrap();
    d.draw(&map);
    s.clean(pages(4, 2), false).unwrap();
    d.draw(&map);
    d.compare("fault.md");
    s.release();
    vm.object(file).release();
    crate::common::check_empty(&vm);
}

#[test]
fn forks_are_as_drawn() {
    let vm = vm(200);
    let parent = space(&vm, 64);
    let mut d = Drawings::new(&vm);

    anon(parent, 0, 2);
    parent.fault(at(0), Access::Write).unwrap();
    parent.fault(at(1), Access::Write).unwrap();
    d.draw(&[("parent", parent)]);
    let child = vm.space(parent.fork().unwrap());
    let both = [("parent", parent), ("child", child)];
    d.draw(&both);
    child.fault(at(1), Access::Read).unwrap();
    d.draw(&both);
    child.fault(at(0), Access::Write).unwrap();
    d.draw(&both);
    parent.fault(at(0), Access::Write).unwrap();
    d.draw(&both);
    parent.fault(at(1), Access::Write).unwrap();
    d.draw(&both);
    child.release();
    d.draw(&[("parent", parent)]);

    parent.remove(pages(0, 2)).unwrap();
    anon(parent, 0, 1);
    parent.inherit(pages(0, 1), Inherit::Share).unwrap();
    anon(parent, 2, 1);
    parent.wire(pages(2, 1)).unwrap();
    anon(parent, 4, 1);
    parent.fault(at(4), Access::Write).unwrap();
    parent.inherit(pages(4, 1), Inherit::None).unwrap();
    d.draw(&[("parent", parent)]);
    let child = vm.space(parent.fork().unwrap());
    let both = [("parent", parent), ("child", child)];
    d.draw(&both);
    child.fault(at(0), Access::Write).unwrap();
    parent.fault(at(0), Access::Read).unwrap();
    child.fault(at(2), Access::Write).unwrap();
    d.draw(&both);
    d.compare("fork.md");
    child.release();
    parent.release();
    crate::common::check_empty(&vm);
}
