use arrow::array::{Int64Array, StringArray, StringViewArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{UnionFields, UnionMode};
use arrow::ipc::reader::StreamReader;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::super::writer::Writer;
use super::*;

/// Returns one row with each kind of column that needs conversion: a view, a struct, a map, and a
/// union as `json_get` returns it.
fn batch() -> RecordBatch {
    let text: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a,\"b\""), None]));
    let body: ArrayRef = Arc::new(StringViewArray::from(vec![Some("{}"), None]));
    let fields = Fields::from(vec![Field::new("body", DataType::Utf8View, true)]);
    let message: ArrayRef = Arc::new(arrow::array::StructArray::new(fields, vec![body], None));
    let mut tags = arrow::array::MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    tags.keys().append_value("team");
    tags.values().append_value("x");
    tags.append(true).unwrap();
    tags.append(false).unwrap();
    let columns = vec![
        ("text", text),
        ("request", message),
        ("metadata", Arc::new(tags.finish()) as ArrayRef),
        ("json", union()),
    ];
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    )
    .unwrap()
}

fn union() -> ArrayRef {
    let fields: UnionFields = [
        (0, Arc::new(Field::new("int", DataType::Int64, true))),
        (1, Arc::new(Field::new("object", DataType::Utf8, true))),
        (2, Arc::new(Field::new("str", DataType::Utf8, true))),
    ]
    .into_iter()
    .collect();
    let children: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![None, None])),
        Arc::new(StringArray::from(vec![Some("{\"a\":\n1}"), None])),
        Arc::new(StringArray::from(vec![None, Some("say \"hi\"")])),
    ];
    assert!(matches!(DataType::Union(fields.clone(), UnionMode::Sparse), DataType::Union(..)));
    Arc::new(
        UnionArray::try_new(fields, ScalarBuffer::from(vec![1_i8, 2]), None, children).unwrap(),
    )
}

fn written(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = Writer::new(format, &batch().schema()).unwrap();
    let mut bytes = Vec::new();
    for batch in batches {
        bytes.extend(writer.write(batch).unwrap());
    }
    bytes.extend(writer.finish().unwrap());
    bytes
}

#[test]
fn json_lines_hold_every_column_and_unions_as_values() {
    let lines = String::from_utf8(written(Format::Jsonl, &[batch()])).unwrap();
    let expected = concat!(
        r#"{"text":"a,\"b\"","request":{"body":"{}"},"metadata":{"team":"x"},"json":{"a": 1}}"#,
        "\n",
        r#"{"text":null,"request":{"body":null},"metadata":null,"json":"say \"hi\""}"#,
        "\n",
    );
    assert_eq!(lines, expected);
}

#[test]
fn an_answer_without_rows_is_still_a_whole_file() {
    assert_eq!(written(Format::Jsonl, &[]), b"");
    assert_eq!(written(Format::Json, &[]), b"[]");
    assert_eq!(written(Format::Csv, &[]), b"text,request,metadata,json\n");
    assert!(
        StreamReader::try_new(written(Format::Arrow, &[]).as_slice(), None)
            .unwrap()
            .next()
            .is_none()
    );
    let parquet = bytes::Bytes::from(written(Format::Parquet, &[]));
    assert_eq!(
        ParquetRecordBatchReaderBuilder::try_new(parquet).unwrap().schema().fields().len(),
        4
    );
}

#[test]
fn csv_holds_nested_values_as_json_text() {
    let text = String::from_utf8(written(Format::Csv, &[batch(), batch()])).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("text,request,metadata,json"));
    assert_eq!(
        lines.next(),
        Some(r#""a,""b""","{""body"":""{}""}","{""team"":""x""}","{""a"": 1}""#)
    );
    assert_eq!(lines.next(), Some(r#","{""body"":null}",,"say ""hi""""#));
    assert_eq!(lines.count(), 2);
}

#[test]
fn arrow_and_parquet_hold_types_that_every_reader_knows() {
    let bytes = written(Format::Arrow, &[batch(), batch()]);
    let mut stream = StreamReader::try_new(bytes.as_slice(), None).unwrap();
    let read = stream.next().unwrap().unwrap();
    assert_eq!(stream.count(), 1);
    let parquet = bytes::Bytes::from(written(Format::Parquet, &[batch(), batch()]));
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(parquet).unwrap().build().unwrap();
    let all = reader.next().unwrap().unwrap();
    assert_eq!(all.num_rows(), 4);
    for batch in [&read, &all.slice(0, 2)] {
        assert_eq!(batch.column(0).as_string::<i32>().value(0), "a,\"b\"");
        assert_eq!(batch.column(1).as_struct().column(0).as_string::<i32>().value(0), "{}");
        assert_eq!(batch.column(2).as_map().value(0).column(1).as_string::<i32>().value(0), "x");
        assert_eq!(batch.column(3).as_string::<i32>().value(0), "{\"a\": 1}");
        assert_eq!(batch.column(3).as_string::<i32>().value(1), "say \"hi\"");
    }
}
