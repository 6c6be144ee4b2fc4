// What an assistant remembers. Times are text in ISO 8601.
CREATE NODE TABLE Concept(
    identifier STRING,
    name STRING,
    description STRING,
    category STRING,
    confidence DOUBLE,
    source STRING,
    created_at STRING,
    updated_at STRING,
    access_count INT32,
    last_accessed STRING,
    PRIMARY KEY(identifier)
);
CREATE NODE TABLE Observation(
    identifier STRING,
    content STRING,
    observation_type STRING,
    context STRING,
    confidence DOUBLE,
    created_at STRING,
    expires_at STRING,
    PRIMARY KEY(identifier)
);
CREATE NODE TABLE Session(
    identifier STRING,
    name STRING,
    purpose STRING,
    started_at STRING,
    ended_at STRING,
    status STRING,
    PRIMARY KEY(identifier)
);
CREATE REL TABLE CONCEPT_RELATES_TO(
    FROM Concept TO Concept,
    relationship_type STRING,
    strength DOUBLE,
    created_at STRING
);
CREATE REL TABLE OBSERVATION_ABOUT(FROM Observation TO Concept, relevance DOUBLE, created_at STRING);
CREATE REL TABLE SESSION_PRODUCED(FROM Session TO Observation, created_at STRING);
CREATE REL TABLE SESSION_REFERENCED(FROM Session TO Concept, usage_type STRING, created_at STRING);
