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
INSERT INTO "jobs" VALUES('ended','lab','fingerprint of ended','key of ended','{"accept": "application/json", "asked": {"genes": [], "names": ["embed"], "scale": "log", "summary": false}, "content_encoding": "", "declared": "counts", "layer": null, "media_type": "application/json", "model": ["mini", "2.0", "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"]}','succeeded',1,1000,1000,NULL,1.79598217266160416604e+09,1.79598217266730093952e+09,1.79598217266918897625e+09);
INSERT INTO "jobs" VALUES('interrupted','lab','fingerprint of interrupted','key of interrupted','{"accept": "application/json", "asked": {"genes": ["CD3D", "NKG7"], "names": ["impute"], "scale": "log", "summary": false}, "content_encoding": "", "declared": "counts", "layer": null, "media_type": "application/json", "model": ["mini", "2.0", "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"]}','running',1,1000,500,NULL,1.79598217266968965526e+09,1.79598217267519688613e+09,NULL);
INSERT INTO "jobs" VALUES('failed','lab','fingerprint of failed',NULL,'{"accept": "application/json", "asked": {"genes": [], "names": ["embed"], "scale": "log", "summary": false}, "content_encoding": "", "declared": "counts", "layer": null, "media_type": "application/json", "model": ["mini", "2.0", "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"]}','failed',1,1000,500,'The device is on fire.',1.79598217267645502088e+09,1.79598217268204569819e+09,1.79598217268344473836e+09);
INSERT INTO "jobs" VALUES('waiting','','fingerprint of waiting',NULL,'{"accept": "application/json", "asked": {"genes": [], "names": ["pathways"], "scale": "log", "summary": false}, "content_encoding": "", "declared": "counts", "layer": null, "media_type": "application/json", "model": ["mini", "2.0", "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"]}','queued',0,NULL,0,NULL,1.79598217268390345576e+09,NULL,NULL);
CREATE INDEX jobs_by_fingerprint ON jobs (owner, fingerprint);
COMMIT;
PRAGMA user_version = 0;
