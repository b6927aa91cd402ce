# Defines outrider_sentencepiece: the library of SentencePiece vocabularies, which comes without a CMake package. Installed
# beside the package's config too.
if(NOT TARGET outrider_sentencepiece)
    find_path(OUTRIDER_SENTENCEPIECE_INCLUDE sentencepiece_processor.h REQUIRED)
    find_library(OUTRIDER_SENTENCEPIECE_LIBRARY sentencepiece REQUIRED)
    add_library(outrider_sentencepiece UNKNOWN IMPORTED GLOBAL)
    set_target_properties(outrider_sentencepiece PROPERTIES IMPORTED_LOCATION ${OUTRIDER_SENTENCEPIECE_LIBRARY}
                          INTERFACE_INCLUDE_DIRECTORIES ${OUTRIDER_SENTENCEPIECE_INCLUDE})
endif()
