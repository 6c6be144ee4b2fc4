//! Bodies of forms, as the contract's clients send them: `application/x-www-form-urlencoded`, or `multipart/form-data`
//! with texts only. JSON is taken wherever a form is.

use super::{error::ApiError, multipart, validation::Fields};
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};

/// The three of them.
pub(super) const MEDIA_TYPES: [&str; 3] = [
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "application/json",
];
/// Most fields of a form.
const FIELDS: usize = 100;

/// The fields of a body, whichever of the three it is.
///
/// # Errors
/// 415 for another type, 400 for a form that cannot be read, 422 for JSON that is not an object.
pub(super) fn fields(headers: &HeaderMap, body: &[u8]) -> Result<Fields, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let (media_type, parameters) = match content_type {
        None => ("application/json", ""),
        Some(text) => text.split_once(';').unwrap_or((text, "")),
    };
    let texts: Vec<(String, String)> = match media_type.trim().to_ascii_lowercase().as_str() {
        "application/json" => return Fields::parse_or_empty(body),
        "application/x-www-form-urlencoded" => url::form_urlencoded::parse(body)
            .take(FIELDS + 1)
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect(),
        "multipart/form-data" => {
            let boundary = multipart::boundary(parameters).ok_or_else(|| malformed("it names no boundary"))?;
            multipart::texts(body, boundary, FIELDS).map_err(malformed)?
        }
        other => {
            let message = format!(
                "{other:?} is not taken here; send application/json, application/x-www-form-urlencoded or multipart/form-data"
            );
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
    };
    if texts.len() > FIELDS {
        return Err(malformed("it has too many fields"));
    }
    let object: Map<String, Value> = texts
        .into_iter()
        .map(|(name, text)| (name, Value::String(text)))
        .collect();
    Ok(Fields::of_form(object))
}

fn malformed(why: &str) -> ApiError {
    ApiError::bad_request(format!("The form cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::validation::ANY;
    use super::*;
    use axum::http::HeaderValue;

    fn read(content_type: &str, body: &str) -> Result<(String, bool, bool), ApiError> {
        let value = HeaderValue::from_str(content_type).unwrap();
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value)]);
        let mut fields = fields(&headers, body.as_bytes())?;
        let key = fields.required_text("s3_key", ANY);
        let (yes, no) = (fields.flag("yes", false), fields.flag("no", true));
        fields.finish()?;
        Ok((key, yes, no))
    }

    const MULTIPART: &str = "multipart/form-data; boundary=\"b\"";

    #[test]
    fn all_three_forms_say_the_same() {
        let expected = ("a/b c".to_owned(), true, false);
        let json = r#"{"s3_key": "a/b c", "yes": true, "no": false}"#;
        assert_eq!(read("application/json; charset=utf-8", json).unwrap(), expected);
        let urlencoded = "s3_key=a%2Fb+c&yes=true&no=False";
        assert_eq!(read("application/x-www-form-urlencoded", urlencoded).unwrap(), expected);
        let multipart = "--b\r\nContent-Disposition: form-data; name=\"s3_key\"\r\n\r\na/b c\r\n\
             --b\r\ncontent-disposition: form-data; name=yes\r\nContent-Type: text/plain\r\n\r\n1\r\n\
             --b\r\nContent-Disposition: form-data; name=\"no\"\r\n\r\noff\r\n--b--\r\n";
        assert_eq!(read(MULTIPART, multipart).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let part = "Content-Disposition: form-data; name=\"s3_key\"";
        for (content_type, body, status) in [
            ("text/plain", String::new(), 415),
            ("application/json", "[]".into(), 422),
            ("application/x-www-form-urlencoded", "s3_key=a&surplus=1".into(), 422),
            ("application/x-www-form-urlencoded", "s3_key=a&yes=perhaps".into(), 422),
            ("application/x-www-form-urlencoded", "a=1&".repeat(200), 400),
            ("multipart/form-data", String::new(), 400),
            (MULTIPART, String::new(), 400),
            (MULTIPART, format!("--b\r\n{part}\r\n\r\nvalue"), 400),
            (MULTIPART, format!("--b\r\n{part}\r\n--b--"), 400),
            (MULTIPART, "--b\r\nX: y\r\n\r\nvalue\r\n--b--".into(), 400),
            (
                MULTIPART,
                format!("--b\r\n{part}; filename=\"f\"\r\n\r\nx\r\n--b--"),
                400,
            ),
            (MULTIPART, "--b--".into(), 422),
        ] {
            let error = read(content_type, &body).unwrap_err();
            assert_eq!(error.status.as_u16(), status, "{content_type} {body}");
        }
    }
}
