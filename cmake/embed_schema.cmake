# Writes one C file with the migrations of one schema set. -DSET=name -DDIR=directory -DOUT=file
# File names are NNN_name.sql, numbered from 001 without gaps; anything else stops the build.
file(GLOB files LIST_DIRECTORIES false "${DIR}/*.sql")
list(SORT files)
set(bodies "")
set(rows "")
set(expected 0)
foreach(file IN LISTS files)
  math(EXPR expected "${expected} + 1")
  get_filename_component(base "${file}" NAME)
  if(NOT base MATCHES "^([0-9][0-9][0-9])_([a-z0-9_]+)\\.sql$")
    message(FATAL_ERROR "${file}: the name must be NNN_name.sql")
  endif()
  set(name "${CMAKE_MATCH_2}")
  string(REGEX REPLACE "^0+" "" number "${CMAKE_MATCH_1}")
  if(NOT number EQUAL expected)
    message(FATAL_ERROR "${file}: expected number ${expected}")
  endif()
  file(READ "${file}" hex HEX)
  string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," hex "${hex}")
  string(APPEND bodies "static const char sql_${number}[] = {\n${hex}0x00};\n")
  string(APPEND rows "    {${number}, \"${name}\", sql_${number}},\n")
endforeach()
file(WRITE "${OUT}" "/* Generated from schema/${SET}; do not edit. */
#include \"sql/sql.h\"

${bodies}
const struct lmo_sql_migration lmo_schema_${SET}[] = {
${rows}    {0, NULL, NULL},
};
const size_t lmo_schema_${SET}_count = ${expected};
")
