//! Tables of a page.

/// A line of a table.
pub(crate) struct Row<'page> {
    /// The heading that it stands under.
    pub(crate) section: &'page str,
    pub(crate) cells: Vec<&'page str>,
}

/// The lines of all tables with so many columns, without their titles.
pub(crate) fn rows(page: &str, columns: usize) -> Vec<Row<'_>> {
    let mut section = "";
    let mut rows: Vec<Row<'_>> = Vec::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading;
        } else if line.starts_with("|--") {
            rows.pop();
        } else if line.starts_with('|') {
            let inner = line.trim_matches('|');
            rows.push(Row { section, cells: inner.split('|').map(str::trim).collect() });
        }
    }
    rows.retain(|row| row.cells.len() == columns);
    rows
}

/// The tests that a cell names.
pub(crate) fn tests(cell: &str) -> Vec<String> {
    let names = cell.split(", ").filter(|name| !name.is_empty());
    names.map(|name| name.trim_matches('`').to_owned()).collect()
}
