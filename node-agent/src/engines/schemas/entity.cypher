// Entities and the vocabulary in which facts about them are told. Times are text in ISO 8601.
CREATE NODE TABLE Entity(
    identifier STRING,
    uri STRING,
    scheme STRING,
    cik STRING,
    ticker STRING,
    exchange STRING,
    name STRING,
    legal_name STRING,
    industry STRING,
    entity_type STRING,
    sic STRING,
    sic_description STRING,
    category STRING,
    state_of_incorporation STRING,
    fiscal_year_end STRING,
    tax_id STRING,
    lei STRING,
    phone STRING,
    website STRING,
    status STRING,
    is_parent BOOLEAN,
    parent_entity_id STRING,
    source STRING,
    created_at STRING,
    updated_at STRING,
    PRIMARY KEY(identifier)
);
CREATE NODE TABLE Period(
    identifier STRING,
    uri STRING,
    instant_date STRING,
    start_date STRING,
    end_date STRING,
    forever_period BOOLEAN,
    fiscal_year INT64,
    fiscal_quarter STRING,
    is_annual BOOLEAN,
    is_quarterly BOOLEAN,
    days_in_period INT64,
    period_type STRING,
    is_ytd BOOLEAN,
    PRIMARY KEY(identifier)
);
CREATE NODE TABLE Unit(
    identifier STRING,
    uri STRING,
    measure STRING,
    value STRING,
    numerator_uri STRING,
    denominator_uri STRING,
    PRIMARY KEY(identifier)
);
CREATE NODE TABLE Element(
    identifier STRING,
    uri STRING,
    qname STRING,
    namespace STRING,
    name STRING,
    type STRING,
    period_type STRING,
    balance STRING,
    substitution_group STRING,
    item_type STRING,
    classification STRING,
    is_abstract BOOLEAN,
    is_dimension_item BOOLEAN,
    is_domain_member BOOLEAN,
    is_hypercube_item BOOLEAN,
    is_integer BOOLEAN,
    is_numeric BOOLEAN,
    is_shares BOOLEAN,
    is_text_block BOOLEAN,
    PRIMARY KEY(identifier)
);
CREATE NODE TABLE Label(
    identifier STRING,
    value STRING,
    type STRING,
    language STRING,
    PRIMARY KEY(identifier)
);
CREATE NODE TABLE Reference(
    identifier STRING,
    value STRING,
    type STRING,
    PRIMARY KEY(identifier)
);
CREATE NODE TABLE Taxonomy(
    identifier STRING,
    uri STRING,
    name STRING,
    version STRING,
    namespace STRING,
    description STRING,
    PRIMARY KEY(identifier)
);
CREATE REL TABLE ENTITY_EVOLVED_FROM(
    FROM Entity TO Entity,
    evolution_type STRING,
    evolution_date STRING,
    notes STRING,
    created_at STRING
);
CREATE REL TABLE ENTITY_OWNS_ENTITY(
    FROM Entity TO Entity,
    ownership_type STRING,
    ownership_percentage DOUBLE,
    effective_date STRING,
    created_at STRING
);
CREATE REL TABLE ELEMENT_HAS_LABEL(FROM Element TO Label, label_context STRING);
CREATE REL TABLE ELEMENT_HAS_REFERENCE(FROM Element TO Reference, reference_context STRING);
CREATE REL TABLE ELEMENT_IN_TAXONOMY(FROM Element TO Taxonomy, taxonomy_context STRING);
CREATE REL TABLE TAXONOMY_HAS_LABEL(FROM Taxonomy TO Label, label_context STRING);
CREATE REL TABLE TAXONOMY_HAS_REFERENCE(FROM Taxonomy TO Reference, reference_context STRING);
