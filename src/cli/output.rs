//! Documents as lines.

use serde_json::Value;

/// A field as text; what is missing or null is a dash.
pub(super) fn field(document: &Value, key: &str) -> String {
    match document.get(key) {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) if text.is_empty() => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) if items.is_empty() => "-".into(),
        Some(Value::Array(items)) => {
            items.iter().map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned)).collect::<Vec<_>>().join(", ")
        }
        Some(other) => other.to_string(),
    }
}

/// The items of a list.
pub(super) fn items(document: &Value) -> &[Value] {
    document.as_array().map_or(&[], Vec::as_slice)
}

/// What an operator should know goes to stderr: stdout is the name alone.
pub(super) fn remarks(added: &Value) {
    for remark in added.get("remarks").map(items).unwrap_or_default().iter().filter_map(Value::as_str) {
        eprintln!("note: {remark}");
    }
}

/// Rows under headings, in columns; the last column is not padded.
pub(super) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(|h| h.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut out = line(&mut headings.into_iter());
    for row in rows {
        out += &line(&mut row.iter().map(String::as_str));
    }
    out
}

/// `key: value` lines of some fields.
pub(super) fn fields(document: &Value, keys: &[&str]) -> String {
    let width = keys.iter().map(|k| k.len()).max().unwrap_or(0);
    keys.iter().map(|key| format!("{:1$}  {2}\n", key.replace('_', " "), width, field(document, key))).collect()
}

/// Microseconds for people.
pub(super) fn duration(us: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", us / unit, us % unit * 10 / unit);
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{} ms", tenths(1_000)),
        _ => format!("{} s", tenths(1_000_000)),
    }
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        None => format!("{bytes} B"),
        Some((name, unit)) => {
            // Tenths, rounded down.
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_are_aligned_and_missing_fields_are_dashes() {
        let row = |v: Value| [field(&v, "a"), field(&v, "b")];
        let rows = [row(json!({"a": "long one", "b": 1})), row(json!({"a": null, "b": ["x", "y"]}))];
        assert_eq!(table(["A", "B"], &rows), "A         B\nlong one  1\n-         x, y\n");
    }

    #[test]
    fn durations_have_the_unit_that_fits() {
        assert_eq!(duration(0), "0 µs");
        assert_eq!(duration(999), "999 µs");
        assert_eq!(duration(12_345), "12.3 ms");
        assert_eq!(duration(61_000_000), "61.0 s");
    }

    #[test]
    fn sizes_are_rounded_down() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024 + 1023), "1.9 KiB");
        assert_eq!(size(u64::MAX), "16777215.9 TiB");
    }
}
