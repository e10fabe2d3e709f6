use crate::store::suite::{Made, conformance};

async fn make() -> Made {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::store::open("file:lockstep.db", dir.path()).await.unwrap();
    Made {
        store,
        _keep: Box::new(dir),
    }
}

conformance!(make);
