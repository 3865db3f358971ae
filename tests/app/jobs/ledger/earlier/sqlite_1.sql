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
INSERT INTO "jobs" VALUES('ended','lab','fingerprint of ended','key of ended','{"content_encoding": "", "media_type": "application/json", "model": ["mini", "2.0", "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"], "spec": {"format": "json", "input": "counts", "layer": null, "model": null, "options": {}, "tasks": ["embed"], "version": ""}, "version": 2}','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',0,'succeeded',1,1000,1000,NULL,1.79598216178964090348e+09,1700000061.79527,1.79598216179717612263e+09);
INSERT INTO "jobs" VALUES('interrupted','lab','fingerprint of interrupted','key of interrupted','{"content_encoding": "", "media_type": "application/json", "model": ["mini", "2.0", "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"], "spec": {"format": "json", "input": "counts", "layer": null, "model": null, "options": {"genes": ["CD3D", "NKG7"]}, "tasks": ["impute"], "version": ""}, "version": 2}','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',0,'running',1,1000,500,NULL,1.79598216179765868185e+09,1.79598216180329108243e+09,NULL);
INSERT INTO "jobs" VALUES('failed','lab','fingerprint of failed',NULL,'{"content_encoding": "", "media_type": "application/json", "model": ["mini", "2.0", "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"], "spec": {"format": "json", "input": "counts", "layer": null, "model": null, "options": {}, "tasks": ["embed"], "version": ""}, "version": 2}','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',0,'failed',1,1000,500,'The device is on fire.',1.79598216180476713175e+09,1.79598216181042671206e+09,1.79598216181181216241e+09);
INSERT INTO "jobs" VALUES('waiting','','fingerprint of waiting',NULL,'{"content_encoding": "", "media_type": "application/json", "model": ["mini", "2.0", "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"], "spec": {"format": "json", "input": "counts", "layer": null, "model": null, "options": {}, "tasks": ["pathways"], "version": ""}, "version": 2}','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',0,'queued',0,NULL,0,NULL,1.79598216181228876112e+09,NULL,NULL);
CREATE INDEX jobs_by_fingerprint ON jobs (owner, fingerprint);
COMMIT;
PRAGMA user_version = 1;
