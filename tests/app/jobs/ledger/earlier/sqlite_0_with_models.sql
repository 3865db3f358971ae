BEGIN TRANSACTION;
CREATE TABLE chunks (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (job, number)
);
INSERT INTO "chunks" VALUES('ended',0,500);
INSERT INTO "chunks" VALUES('ended',1,500);
INSERT INTO "chunks" VALUES('interrupted',0,500);
INSERT INTO "chunks" VALUES('failed',0,500);
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    idempotency_key TEXT,
    manifest TEXT NOT NULL,
    model TEXT NOT NULL DEFAULT '',
    deaths INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    rows INTEGER,
    rows_done INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    UNIQUE (owner, idempotency_key)
);
INSERT INTO "jobs" VALUES('ended','lab','fingerprint of ended','key of ended','{"accept": "application/json", "asked": {"drugs": [], "genes": [], "names": ["embed"], "scale": "log", "summary": false}, "content_encoding": "", "declared": "counts", "layer": null, "media_type": "application/json", "model": ["mini", "2.0", "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"]}','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',0,'succeeded',1,1000,1000,NULL,1.79598217344591903682e+09,1.79598217345161104206e+09,1700000073.45356);
INSERT INTO "jobs" VALUES('interrupted','lab','fingerprint of interrupted','key of interrupted','{"accept": "application/json", "asked": {"drugs": [], "genes": ["CD3D", "NKG7"], "names": ["impute"], "scale": "log", "summary": false}, "content_encoding": "", "declared": "counts", "layer": null, "media_type": "application/json", "model": ["mini", "2.0", "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"]}','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',0,'running',1,1000,500,NULL,1.79598217345402693745e+09,1.7959821734595797062e+09,NULL);
INSERT INTO "jobs" VALUES('failed','lab','fingerprint of failed',NULL,'{"accept": "application/json", "asked": {"drugs": [], "genes": [], "names": ["embed"], "scale": "log", "summary": false}, "content_encoding": "", "declared": "counts", "layer": null, "media_type": "application/json", "model": ["mini", "2.0", "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"]}','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',0,'failed',1,1000,500,'The device is on fire.',1.79598217346081161496e+09,1.79598217346635794641e+09,1700000073.46762);
INSERT INTO "jobs" VALUES('waiting','','fingerprint of waiting',NULL,'{"accept": "application/json", "asked": {"drugs": [], "genes": [], "names": ["pathways"], "scale": "log", "summary": false}, "content_encoding": "", "declared": "counts", "layer": null, "media_type": "application/json", "model": ["mini", "2.0", "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"]}','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',0,'queued',0,NULL,0,NULL,1.79598217346800661086e+09,NULL,NULL);
CREATE INDEX jobs_by_fingerprint ON jobs (owner, fingerprint);
COMMIT;
PRAGMA user_version = 0;
