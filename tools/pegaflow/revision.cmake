# Writes OUT, which says what the program was built from: the git revision of SOURCE ("" where there is none) and the kind of build.
set(revision "")
if(EXISTS ${SOURCE}/.git)
  execute_process(COMMAND git --no-optional-locks -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=*
    OUTPUT_VARIABLE revision OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "// Generated.
#include \"tools/pegaflow/bench_head.hpp\"

namespace pegaflow::cli {
const char* const kGitRevision = \"${revision}\";
const char* const kBuildType = \"${BUILD}\";
}  // namespace pegaflow::cli
" @ONLY)
