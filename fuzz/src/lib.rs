//! What the fuzz targets share with the tests of the project.

#[path = "../../tests/it/conversation.rs"]
pub mod conversation;
#[path = "../../tests/it/properties.rs"]
pub mod properties;
