//! Files, and comparing everything.

use super::{FILE_PAGES, PLACES, Page, SPACES, SPAN, World};
use crate::common::{BASE, PAGE, at, check_empty};
use bsdvm::{Prot, VirtAddr};

impl World {
    pub(super) fn file_write(
        &mut self,
        file: usize,
        page: u64,
        place: usize,
        value: u64,
        may_fail: bool,
    ) {
        let page = page % FILE_PAGES;
        let place = place % 4;
        let offset = page * PAGE + PLACES[place];
        let object = self.vm.object(self.file_ids[file]);
        let r = object.write(offset, &value.to_le_bytes());
        let inside = offset + 8 <= self.file_models[file].bytes;
        match r {
            Ok(n) => {
                assert_eq!(n == 8, inside, "{n} bytes");
                if inside {
                    self.file_models[file].pages[page as usize][place] = value;
                }
            }
            Err(e) => assert!(may_fail, "{e:?}"),
        }
    }

    pub(super) fn file_read(&mut self, file: usize, page: u64, place: usize, may_fail: bool) {
        let page = page % FILE_PAGES;
        let place = place % 4;
        let offset = page * PAGE + PLACES[place];
        let mut bytes = [0; 8];
        match self.vm.object(self.file_ids[file]).read(offset, &mut bytes) {
            Ok(8) => assert_eq!(
                u64::from_le_bytes(bytes),
                self.file_models[file].pages[page as usize][place]
            ),
            Ok(n) => assert!(n == 0 && offset >= self.file_models[file].bytes, "{n}"),
            Err(e) => assert!(may_fail, "{e:?}"),
        }
    }

    /// Sizes end at the end of a word, so that no word is cut.
    pub(super) fn resize(&mut self, file: usize, bytes: u64) {
        let bytes = bytes % (FILE_PAGES * PAGE) / 8 * 8;
        self.vm
            .object(self.file_ids[file])
            .set_size(bytes)
            .expect("files are not charged");
        let model = &mut self.file_models[file];
        model.bytes = bytes;
        for (n, page) in model.pages.iter_mut().enumerate() {
            for (i, word) in page.iter_mut().enumerate() {
                if n as u64 * PAGE + PLACES[i] >= bytes {
                    *word = 0;
                }
            }
        }
        // The pager keeps what was written to it: cut it, as a file system does.
        let mut kept = self.files.pages.lock().unwrap();
        for (&(cookie, n), contents) in kept.iter_mut() {
            if cookie == file as u64 {
                let from = bytes.saturating_sub(n * PAGE).min(PAGE) as usize;
                contents[from..].fill(0);
            }
        }
    }

    pub(super) fn compare_word(&self, s: usize, page: u64, place: usize, seen: u64) {
        let content = self.flat_ref(s)[&page].cell.borrow();
        assert!(
            self.agrees(&content, place, seen),
            "space {s} page {page} word {place}: {seen:#x}, the model says {content:?} {:x?}",
            self.words(&content)
        );
    }

    /// Compares every page of every space: contents, protection, wiring and sharing.
    pub fn compare_all(&self) {
        for s in (0..SPACES).filter(|&s| self.spaces[s].is_some()) {
            let space = self.vm.space(self.id(s));
            for p in 0..SPAN {
                let info = space.entry(at(p)).filter(|i| i.range.contains(at(p)));
                let Some(page) = self.flat_ref(s).get(&p) else {
                    assert!(info.is_none(), "page {p} should be a hole");
                    continue;
                };
                let info = info.unwrap_or_else(|| panic!("page {p} should be mapped"));
                assert_eq!(
                    (
                        info.prot,
                        info.max_prot,
                        info.inherit,
                        info.sharing,
                        info.user_wired
                    ),
                    (page.prot, page.max, page.inherit, page.sharing, page.wired),
                    "page {p}"
                );
                self.compare_page(s, p, page);
            }
        }
    }

    fn compare_page(&self, s: usize, p: u64, page: &Page) {
        let space = self.vm.space(self.id(s));
        if !page.prot.contains(Prot::READ) || self.beyond(&page.cell.borrow()) {
            return;
        }
        for (place, offset) in PLACES.iter().enumerate() {
            let mut bytes = [0; 8];
            space
                .read(VirtAddr(BASE + p * PAGE + offset), &mut bytes)
                .unwrap_or_else(|e| panic!("page {p}: {e:?}"));
            self.compare_word(s, p, place, u64::from_le_bytes(bytes));
        }
    }

    /// Ends everything: nothing may be left.
    pub fn end(mut self) {
        self.compare_all();
        for s in &mut self.spaces {
            if let Some((id, _)) = s.take() {
                self.vm.space(id).release();
            }
        }
        for &file in &self.file_ids {
            self.vm.object(file).release();
        }
        check_empty(&self.vm);
    }
}
